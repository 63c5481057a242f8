package httpbridge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"postbus.example/endpoint"
)

const (
	discoveryPause   = 5 * time.Second  // between two questions that somebody waits for
	discoveryRefresh = 30 * time.Second // between two that nobody waits for
	discoveryTimeout = 2 * time.Second
)

// directory remembers which subjects discovery has seen. It fails quietly: without the grant for discovery nothing is
// known, which costs no more than a 404 in place of a 503.
type directory struct {
	source endpoint.Directory // nil: there is none
	life   context.Context
	log    *slog.Logger

	mu     sync.Mutex
	seen   map[string]bool
	asked  time.Time
	flight chan struct{} // closed when the question under way is answered; nil if there is none
	failed bool          // so that it is logged once
}

func newDirectory(life context.Context, t endpoint.Transport, log *slog.Logger) *directory {
	d := &directory{life: life, log: log, seen: map[string]bool{}}
	d.source, _ = t.(endpoint.Directory)
	return d
}

// warm asks now and then, without waiting, so that what stops later is known by then.
func (d *directory) warm() {
	if d.source != nil {
		d.ask(discoveryRefresh)
	}
}

// knows reports whether a subject was seen, and asks if it was not.
func (d *directory) knows(ctx context.Context, subject string) bool {
	if d.source == nil {
		return false
	}
	if d.has(subject) {
		return true
	}
	select {
	case <-d.ask(discoveryPause):
	case <-ctx.Done():
	}
	return d.has(subject)
}

func (d *directory) has(subject string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[subject]
}

// ask starts a question unless one is under way or was asked within the pause. The channel is closed when the latest
// one is answered.
func (d *directory) ask(pause time.Duration) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flight != nil {
		return d.flight
	}
	flight := make(chan struct{})
	if now := time.Now(); d.life.Err() == nil && (d.asked.IsZero() || now.Sub(d.asked) >= pause) {
		d.asked, d.flight = now, flight
		go d.refresh(flight)
		return flight
	}
	close(flight)
	return flight
}

// refresh ends by its timeout, or with the bridge.
func (d *directory) refresh(flight chan struct{}) {
	ctx, cancel := context.WithTimeout(d.life, discoveryTimeout)
	defer cancel()
	instances, err := d.source.Discover(ctx, "")
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range instances {
		for _, e := range i.Endpoints {
			d.seen[e.Subject] = true
		}
	}
	if err != nil && !d.failed && d.life.Err() == nil {
		d.log.Warn("discovery failed; what is exposed by pattern and stops is 404 rather than 503", "error", err)
	}
	d.failed = err != nil
	d.flight = nil
	close(flight)
}

// settle waits for the question under way, if there is one.
func (d *directory) settle() {
	d.mu.Lock()
	flight := d.flight
	d.mu.Unlock()
	if flight != nil {
		<-flight
	}
}
