package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// uplink makes the connections of a bus that owns them, and knows the latest. It is a nats.CustomDialer.
//
// nats.go writes, and dials, under the lock that everybody needs who publishes: one write that gets stuck holds them all
// up. The connections of an uplink take whatever they are given, and calls ask here first whether it makes sense.
type uplink struct {
	dialer   nats.CustomDialer
	patience time.Duration // with one write; 0: any
	tls      client
	address  string        // that was dialled last
	silent   time.Duration // that the broker may be; 0: any
	latest   atomic.Pointer[outlet]
	silence  atomic.Bool // nobody answered when it last dialled

	made, lost atomic.Uint64                      // the latest epoch that began, and the latest known to be over
	severed    atomic.Pointer[func(uint64, bool)] // is told when one is

	takes atomic.Pointer[taker] // who takes what it can out of what is read

	leaving atomic.Pointer[func()]        // is told when the server is about to end
	gate    atomic.Pointer[chan struct{}] // closed when calls may go on; nil while they may
}

// option is the last of the options of a connection: a dialer of the user's stays, and their timeouts bound ours.
func (u *uplink) option(o *nats.Options) error {
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{Timeout: o.Timeout, Control: boundSilence}
	}
	if u.dialer = o.CustomDialer; u.dialer == nil {
		u.dialer = &resolver{dialer: o.Dialer, literal: o.SkipHostLookup, inOrder: o.NoRandomize, multipath: o.AllowMultipathTCP}
		o.SkipHostLookup = true // the resolver does it
	}
	u.tls = clientOf(o)
	u.patience = o.FlusherTimeout
	u.silent = silenceOf(o)
	o.MaxPingsOut = indulgence*max(o.MaxPingsOut, 1) + 1
	if o.CustomReconnectDelayCB == nil {
		o.CustomReconnectDelayCB = func(attempts int) time.Duration { return reconnectDelay(attempts, u.silence.Load()) }
	}
	o.LameDuckModeHandler = u.retire(o.LameDuckModeHandler)
	o.CustomDialer = u
	return nil
}

// Dial implements nats.CustomDialer.
func (u *uplink) Dial(network, address string) (net.Conn, error) {
	if old := u.latest.Load(); old != nil {
		_ = old.Close() // nats.go forgets those that were made and then refused
	}
	c, err := u.dialer.Dial(network, address)
	u.silence.Store(isTimeout(err))
	if err != nil {
		return nil, err
	}
	o := newOutlet(c, u.patience)
	o.epoch = u.made.Add(1)
	o.silence, o.sever, o.takes = u.silent, u.sever, &u.takes
	u.latest.Store(o)
	u.address = address
	return o, nil
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// admit takes a place for n bytes that are about to be published, to be released afterwards. There is nothing to take, and
// nil returned, where the connection is none of ours. It says whether it took time. What it refuses was not sent.
func (u *uplink) admit(n int, deadline time.Time, done <-chan struct{}) (o *outlet, waited bool, err error) {
	o = u.latest.Load()
	switch {
	case o == nil:
		return nil, false, nil
	case !o.up.Load(): // nats.go would say the same, but when it has dialled
		return nil, false, nats.ErrDisconnected
	case o.reserve(n):
		return o, false, nil
	}
	if err = o.await(n, deadline, done); err != nil {
		return nil, true, err
	}
	return o, true, nil
}

// away is why nothing can be sent just now, nil where it may well be.
func (u *uplink) away() error {
	if o := u.latest.Load(); o != nil && !o.up.Load() {
		return nats.ErrDisconnected
	}
	return nil
}

// crowded reports whether the program's own work keeps the processors busy, as far as those who send have noticed.
func (u *uplink) crowded() bool {
	o := u.latest.Load()
	return o != nil && o.crowded.Load()
}

// SkipTLSHandshake is asked by nats.go when it is about to put TLS on the connection that it just dialled. It does so itself
// where that is not done beneath: where the user's dialer says what is to be done, or gave a connection that we don't know,
// and where we don't know for sure how it would do it.
func (u *uplink) SkipTLSHandshake() bool {
	if d, ok := u.dialer.(interface{ SkipTLSHandshake() bool }); ok {
		return d.SkipTLSHandshake()
	}
	o := u.latest.Load()
	if _, ours := u.dialer.(*resolver); !ours || o == nil || o.attempt == nil || o.first.more || len(o.word) > 0 {
		return false
	}
	config := u.tls.at(u.address)
	return config != nil && o.secure(config)
}

// resolver dials as nats.go does by itself: the addresses of a name in random order, its timeout shared among them.
type resolver struct {
	dialer    *net.Dialer
	literal   bool // names are the dialer's business
	inOrder   bool
	multipath *bool
}

// Dial implements nats.CustomDialer.
func (r *resolver) Dial(network, address string) (c net.Conn, err error) {
	addrs := r.resolve(address)
	d := *r.dialer
	d.Timeout /= time.Duration(len(addrs))
	if r.multipath != nil {
		d.SetMultipathTCP(*r.multipath)
	}
	for _, a := range addrs {
		if c, err = d.Dial(network, a); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// resolve returns the addresses of a name with a port; the name itself when nobody knows it.
func (r *resolver) resolve(address string) []string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || r.literal || net.ParseIP(host) != nil {
		return []string{address}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if r.dialer.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.dialer.Timeout)
	}
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil || len(addrs) == 0 {
		return []string{address}
	}
	for i, a := range addrs {
		addrs[i] = net.JoinHostPort(a, port)
	}
	if !r.inOrder {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	return addrs
}
