package httpbridge

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// errDraining is the cause of calls that a drain ended.
var errDraining = endpoint.Unavailable.New("the bridge is shutting down").WithReason(endpoint.ReasonDraining)

// Drain refuses new calls with 503, reason draining, and asks clients to close their connections; it returns when what
// runs has ended. When ctx ends first, or after 30 seconds if ctx has no deadline, it cancels what still runs,
// authentication and bodies that are being read included, and returns an error that says how many calls that were. /readyz
// is 503 from the start, /healthz stays 200. Drain may be called again, and at once from several goroutines; there is no
// way back.
//
// It leaves the http.Server alone, whose Shutdown comes after it, and the transport, whose Drain comes last.
func (b *Bridge) Drain(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	var err error
	select {
	case <-b.gate.drain():
	case <-ctx.Done():
		if n := b.gate.running.Load(); n > 0 {
			err = fmt.Errorf("httpbridge: drain: %d calls still ran and were canceled: %w", n, context.Cause(ctx))
		}
	}
	b.end(errDraining)
	b.lives.end(errDraining)
	b.directory.settle()
	return err
}

// gate counts the calls that run and lets no more than its limit in.
//
//	open --drain--> draining --the last one leaves--> idle (closed)
type gate struct {
	limit   int64
	running atomic.Int64
	closing atomic.Bool
	idle    chan struct{}
	once    sync.Once
}

func newGate(limit int) *gate { return &gate{limit: int64(limit), idle: make(chan struct{})} }

// enter adds before it looks, and drain looks after it closed: one of them sees the other.
func (g *gate) enter() error {
	n := g.running.Add(1)
	switch {
	case g.closing.Load():
		g.leave()
		return errDraining.WithOutcome(endpoint.NotSent)
	case n > g.limit:
		g.leave()
		return crowded("the bridge is at its limit")
	}
	return nil
}

// more lets one who is in have the room of another, if there is any.
func (g *gate) more() bool {
	if g.running.Add(1) > g.limit {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.running.Add(-1) == 0 && g.closing.Load() {
		g.once.Do(func() { close(g.idle) })
	}
}

func (g *gate) draining() bool { return g.closing.Load() }

func (g *gate) drain() <-chan struct{} {
	g.closing.Store(true)
	if g.running.Load() == 0 {
		g.once.Do(func() { close(g.idle) })
	}
	return g.idle
}

// conns counts the calls that run on each connection of HTTP/2.
type conns struct {
	limit   int
	mu      sync.Mutex
	running map[string]int
}

func (c *conns) enter(r *http.Request) (release func(), err error) {
	key := r.RemoteAddr
	if _, _, bad := net.SplitHostPort(key); bad != nil {
		return func() {}, nil // what is no address (a Unix socket's "@") tells no connections apart
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[key] >= c.limit {
		return nil, crowded("the connection is at its limit")
	}
	c.running[key]++
	return func() { c.release(key) }, nil
}

func (c *conns) release(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[key]--; c.running[key] == 0 {
		delete(c.running, key)
	}
}

func crowded(msg string) error {
	return endpoint.ResourceExhausted.New(msg).WithReason(endpoint.ReasonLocalLimit).WithOutcome(endpoint.NotSent).
		WithRetryAfter(time.Second)
}
