package simnet

import (
	"net"
	"sync"
)

// ErrUnreachable is what Connect returns for a link that carries nothing just now. It is a timeout: nobody answers.
var ErrUnreachable net.Error = unreachable{}

type unreachable struct{}

func (unreachable) Error() string   { return "simnet: the link is frozen or has a hole" }
func (unreachable) Timeout() bool   { return true }
func (unreachable) Temporary() bool { return true }

// Link is a path between clients and a server: a cable that any number of connections lie in, one after the other or at
// once. Its conditions outlast them. Make one with New; its methods may be called concurrently.
type Link struct {
	// Up carries what near ends say, Down what far ends say.
	Up, Down Way

	mu    sync.Mutex
	conns map[*Conn]bool
}

// New makes a link without latency or limits.
func New() *Link {
	l := &Link{conns: map[*Conn]bool{}}
	l.Up.link, l.Down.link = l, l
	return l
}

// Connect puts the link in front of far, which belongs to it from now on, and returns the near end. A link that is frozen
// or has a hole refuses, at once: ErrUnreachable, and far is closed.
//
// The connection is opened over a perfect link; its conditions count from Begin. For a client like nats.go shakes hands
// under a lock that others wait for, and while somebody waits for a mutex, virtual time stands still.
func (l *Link) Connect(far net.Conn) (*Conn, error) {
	near, end := net.Pipe()
	c := &Conn{Conn: near, link: l, end: end, far: far}
	c.up = stream{way: &l.Up, conn: c, from: end, to: far}
	c.down = stream{way: &l.Down, conn: c, from: far, to: end}
	c.up.cond.L, c.down.cond.L = &l.mu, &l.mu
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Up.barred() || l.Down.barred() {
		_ = far.Close()
		return nil, ErrUnreachable
	}
	l.conns[c] = true
	c.pumps = 4
	for _, s := range []*stream{&c.up, &c.down} {
		go s.absorb()
		go s.deliver()
	}
	return c, nil
}

// Cut breaks all connections: both ends find out at once, what was on the way is lost. New ones may be made.
func (l *Link) Cut() {
	l.mu.Lock()
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		c.cut()
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.end.Close()
		_ = c.far.Close()
	}
}

// Mend thaws both ways and fills their holes. A connection that lost something in a hole stays as it is: what comes later
// would make no sense to anyone.
func (l *Link) Mend() {
	l.Up.set(func(w *Way) { w.frozen, w.hole = false, false })
	l.Down.set(func(w *Way) { w.frozen, w.hole = false, false })
}

// Conns returns how many connections lie in the link.
func (l *Link) Conns() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Conn is the near end of a connection.
type Conn struct {
	net.Conn

	link     *Link
	end, far net.Conn // where the pumps read and write
	up, down stream
	began    bool
	broken   bool
	pumps    int // that have not ended
}

// Begin puts the link's conditions in force. It may be called more than once.
func (c *Conn) Begin() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.began = true
}

// cut ends the pumps (lock held).
func (c *Conn) cut() {
	c.broken = true
	c.up.cond.Broadcast()
	c.down.cond.Broadcast()
}

// leave counts a pump out. With the last one the connection is no concern of the link any more.
func (c *Conn) leave() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.pumps--; c.pumps == 0 {
		delete(c.link.conns, c)
	}
}
