package bustest

import (
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/internal/simnet"
)

// Net is a NATS server, and buses that reach it through simulated links, in a bubble of testing/synctest: there, time
// passes when everybody waits, at once and exactly, and a goroutine that is left behind fails the test. Make it with NewNet.
//
// Time is exact, the order in which goroutines run is not: assert what holds under any order. Who waits for a mutex does
// not wait in the sense of a bubble, so nobody may hold one while time has to pass.
type Net struct {
	// Server is the broker. Shutdown and Restart are the ways to lose it and to have it back.
	Server *embedded.Server

	t     testing.TB
	log   *testLog
	mu    sync.Mutex
	links map[string]*Link
	buses []*bus.Bus
	conns []*nats.Conn
}

// Link is the way between a client and the server: see its methods, and those of Up (to the server) and Down.
type Link = simnet.Link

// Way is one direction of a Link.
type Way = simnet.Way

// NewNet starts a server without a socket. When the test ends, links are mended, buses drained, and all is gone; it fails
// when a drain does. It is for the test's own bubble, and panics outside of one.
func NewNet(t testing.TB, opts ...embedded.Option) *Net {
	t.Helper()
	synctest.Wait() // which is what panics
	emptyPools()
	s, err := embedded.Start(append(opts, embedded.WithoutListener())...)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	n := &Net{Server: s, t: t, log: &testLog{to: t.Output()}, links: map[string]*Link{}}
	t.Cleanup(n.end)
	return n
}

// Connect connects a bus to the server through the link of that name. Options are added to the net's own, as in Connect.
// Several connections may lie in one link.
//
// Connections are made in no time, and fail at once over a link that is frozen or has a hole; the link's conditions count
// from the moment they stand. nats.go holds a lock while it connects, for which its other users wait.
func (n *Net) Connect(link string, opts ...bus.Option) *bus.Bus {
	n.t.Helper()
	opts = append([]bus.Option{bus.WithLogger(n.log.logger()), bus.WithNATS(n.through(link))}, opts...)
	b, err := bus.Connect(netURL, opts...)
	if err != nil {
		n.t.Fatalf("bustest: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buses = append(n.buses, b)
	return b
}

// Dial connects a client without a bus through the link of that name: a peer in its own right, or the connection that
// bus.New is given.
func (n *Net) Dial(link string, opts ...nats.Option) *nats.Conn {
	n.t.Helper()
	nc, err := nats.Connect(netURL, append([]nats.Option{n.through(link)}, opts...)...)
	if err != nil {
		n.t.Fatalf("bustest: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, nc)
	return nc
}

// Link returns the link of that name, a perfect one if nothing was said of it yet. It outlasts the connections in it.
func (n *Net) Link(name string) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[name] == nil {
		n.links[name] = simnet.New()
	}
	return n.links[name]
}

// netURL has an address in it: a name would be looked up, by goroutines outside of the bubble.
const netURL = "nats://127.0.0.1:4222"

func (n *Net) through(link string) nats.Option {
	return nats.SetCustomDialer(dialer{n.Server, n.Link(link)})
}

type dialer struct {
	server *embedded.Server
	link   *Link
}

// Dial implements nats.CustomDialer.
func (d dialer) Dial(_, _ string) (net.Conn, error) {
	far, err := d.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	c, err := d.link.Connect(far)
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

// conn knows when nats.go has shaken hands: it takes the deadline away then.
type conn struct{ *simnet.Conn }

// SetDeadline implements net.Conn.
func (c conn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.Begin()
	}
	return c.Conn.SetDeadline(t)
}

func (n *Net) end() {
	n.mu.Lock()
	links, buses, conns := maps.Clone(n.links), slices.Clone(n.buses), slices.Clone(n.conns)
	n.mu.Unlock()
	for _, l := range links {
		l.Mend()
	}
	for _, b := range slices.Backward(buses) {
		drain(n.t, b)
	}
	for _, nc := range conns {
		nc.Close()
	}
	n.Server.Shutdown()
	for _, l := range links {
		l.Cut()
	}
	n.log.end()
	synctest.Wait() // for those who learn of it, and may have a timer to give back
	emptyPools()
}

// emptyPools makes everybody forget their pooled timers, nats.go above all: one from another bubble is fatal.
func emptyPools() {
	runtime.GC() // what is in a sync.Pool survives one of them
	runtime.GC()
}
