package uplink

import (
	"context"
	"math/rand/v2"
	"net"
	"time"
)

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

// reconnectDelay spreads the clients of a server that restarts: the first delay is uniform over two seconds, later ones
// have full jitter up to five. Where nobody said no, as on a path that is dead, to dial took its time already, and ends
// for each client at a time of its own: the next attempt follows, to be there when the path is.
func reconnectDelay(attempts int, silence bool) time.Duration {
	if silence {
		return rand.N(200 * time.Millisecond)
	}
	if attempts <= 1 {
		return rand.N(2 * time.Second)
	}
	return rand.N(min(2*time.Second<<min(attempts-1, 4), 5*time.Second))
}
