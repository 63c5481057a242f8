package uplink

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Uplink makes the connections of a bus that owns them, and knows the latest. It is a nats.CustomDialer.
//
// nats.go writes, and dials, under the lock that everybody needs who publishes: one write that gets stuck holds them all
// up. The connections of an uplink take whatever they are given, and calls ask here first whether it makes sense.
type Uplink struct {
	dialer   nats.CustomDialer
	patience time.Duration // with one write; 0: any
	tls      client
	address  string        // that was dialled last
	silent   time.Duration // that the broker may be; 0: any
	latest   atomic.Pointer[Outlet]
	silence  atomic.Bool // nobody answered when it last dialled

	made, lost atomic.Uint64 // the latest epoch that began, and the latest known to be over

	takes   atomic.Pointer[Taker]              // who takes what it can out of what is read
	severed atomic.Pointer[func(uint64, bool)] // is told when an epoch is over
	leaving atomic.Pointer[func()]             // is told when the server is about to end
}

// Option is the last of the options of a connection: a dialer of the user's stays, and their timeouts bound ours.
func (u *Uplink) Option(o *nats.Options) error {
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

// Attach has a bus take what it can of what is read, and be told of each epoch that is over and whether this end closed the
// connection, and when the server is about to end. It is told by a goroutine of its own.
func (u *Uplink) Attach(takes Taker, severed func(epoch uint64, closed bool), leaving func()) {
	u.takes.Store(&takes)
	u.severed.Store(&severed)
	u.leaving.Store(&leaving)
}

// retire returns a handler of a server's notice that it is about to end, before the user's own.
func (u *Uplink) retire(told nats.ConnHandler) nats.ConnHandler {
	return func(nc *nats.Conn) {
		if leaving := u.leaving.Load(); leaving != nil {
			go (*leaving)()
		}
		if told != nil {
			told(nc)
		}
	}
}

// Dial implements nats.CustomDialer.
func (u *Uplink) Dial(network, address string) (net.Conn, error) {
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

// Latest is the connection that was made last, nil where it is none of ours.
func (u *Uplink) Latest() *Outlet { return u.latest.Load() }

// Admit takes a place for n bytes that are about to be published, to be released afterwards. There is nothing to take, and
// nil returned, where the connection is none of ours. It says whether it took time. What it refuses was not sent.
func (u *Uplink) Admit(n int, deadline time.Time, done <-chan struct{}) (o *Outlet, waited bool, err error) {
	o = u.latest.Load()
	switch {
	case o == nil:
		return nil, false, nil
	case !o.up.Load(): // nats.go would say the same, but when it has dialled
		return nil, false, nats.ErrDisconnected
	case o.Reserve(n):
		return o, false, nil
	}
	if err = o.await(n, deadline, done); err != nil {
		return nil, true, err
	}
	return o, true, nil
}

// SkipTLSHandshake is asked by nats.go when it is about to put TLS on the connection that it just dialled. It does so itself
// where that is not done beneath: where the user's dialer says what is to be done, or gave a connection that we don't know,
// and where we don't know for sure how it would do it.
func (u *Uplink) SkipTLSHandshake() bool {
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
