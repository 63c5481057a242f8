package middleware

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// The polls of WaitForService.
const (
	pollFirst = 5 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// gates are where the callers of one Retry value wait for services to appear: a gate for each subject that somebody waits
// for, none otherwise.
type gates struct {
	waiting atomic.Int64 // in all of them, so that the good path need not look
	mu      sync.Mutex
	by      map[string]*gate
}

// gate lets one waiter at a time through as the poll, and all of them once a poll met a service.
//
//	wait ──turn──▶ pause ──▶ poll ──nobody──▶ turn given back, pause doubled, wait again
//	  │              │         └──met a service, or out for long──▶ opened
//	  └──opened──────┴──▶ go
type gate struct {
	turn    chan struct{} // full while somebody has it
	waiters int           // guarded by gates.mu

	mu       sync.Mutex
	through  chan struct{} // closed when the gate opens, and replaced
	interval time.Duration
	next     time.Time // of the next poll, whoever's
}

func gateKey(ctx context.Context, c *endpoint.Call) string {
	if id := endpoint.InstanceFrom(ctx); id != "" {
		return c.Subject + " " + id
	}
	return c.Subject
}

func (gs *gates) enter(key string) *gate {
	gs.waiting.Add(1)
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.by[key]
	if g == nil {
		g = &gate{turn: make(chan struct{}, 1), through: make(chan struct{}), interval: pollFirst, next: time.Now().Add(pollFirst)}
		if gs.by == nil {
			gs.by = map[string]*gate{}
		}
		gs.by[key] = g
	}
	g.waiters++
	return g
}

func (gs *gates) leave(key string, g *gate) {
	gs.waiting.Add(-1)
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g.waiters--; g.waiters == 0 {
		delete(gs.by, key)
	}
}

// opened tells that a call that did not wait met the service.
func (gs *gates) opened(key string) {
	gs.mu.Lock()
	g := gs.by[key]
	gs.mu.Unlock()
	if g != nil {
		g.open()
	}
}

// open lets everybody go who waits now.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.through)
	g.through = make(chan struct{})
	g.interval, g.next = pollFirst, time.Now().Add(pollFirst)
}

// missed doubles the pause after a poll that met nobody, or did not get as far as to know.
func (g *gate) missed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.interval = min(2*g.interval, pollMost)
	g.next = time.Now().Add(g.interval)
}

// wait returns when the caller may go: with the turn, as the poll, or because the gate opened. It is false if the context
// ended first.
func (g *gate) wait(ctx context.Context) (poll, ok bool) {
	g.mu.Lock()
	through := g.through
	g.mu.Unlock()
	select {
	case <-through:
		return false, true
	case <-ctx.Done():
		return false, false
	case g.turn <- struct{}{}:
	}
	g.mu.Lock()
	next := g.next
	g.mu.Unlock()
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-timer.C:
		if ctx.Err() == nil {
			return true, true
		}
	case <-through:
		ok = true
	case <-ctx.Done():
	}
	<-g.turn
	return false, ok
}

// poll sends the caller's own call with the turn, and gives it back. A poll that is out for long has met somebody, since
// nobody answers at once: a slow handler or a stream must not hold up the others.
func (g *gate) poll(ctx context.Context, try func() error) {
	var once sync.Once
	release := func() { once.Do(func() { <-g.turn }) }
	defer release()
	long := time.AfterFunc(pollMost, func() {
		g.open()
		release()
	})
	defer long.Stop()
	if err := try(); err == nil || ctx.Err() == nil && !missing(err) && reached(err) {
		g.open()
	} else {
		g.missed()
	}
}
