package httpbridge

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

const (
	discoveryPause   = 5 * time.Second  // between two questions that somebody waits for
	discoveryRefresh = 30 * time.Second // between two that nobody waits for
	discoveryTimeout = 2 * time.Second
)

// errUndiscovered is what becomes of calls that only go to endpoints of a known kind.
var errUndiscovered = endpoint.Unimplemented.New("the bridge can't find out what kind of endpoint this is, so only POST of one message is served").
	WithReason(endpoint.ReasonUnsupported).WithOutcome(endpoint.NotSent)

// directory remembers what discovery has seen of what is exposed. It fails quietly: without the grant for discovery
// nothing is known. A POST of one message does without, at the cost of a 404 in place of a 503; streams and GET don't.
type directory struct {
	source  endpoint.Directory // nil: there is none
	exposes func(subject string) bool
	life    context.Context
	log     *slog.Logger
	seen    atomic.Pointer[catalogue] // never nil
	due     atomic.Int64              // when warm asks, in nanoseconds of Unix time

	mu     sync.Mutex
	asked  time.Time
	flight chan struct{} // closed when the question under way is answered; nil if there is none
	failed bool          // so that it is logged once

	filling sync.Mutex
	filled  int // the answer whose schemas were asked for
}

func newDirectory(life context.Context, t endpoint.Transport, exposes func(string) bool, log *slog.Logger) *directory {
	d := &directory{life: life, exposes: exposes, log: log}
	d.source, _ = t.(endpoint.Directory)
	d.seen.Store(&catalogue{})
	return d
}

// warm asks now and then, without waiting, so that what stops or changes later is known by then.
func (d *directory) warm(now time.Time) {
	if d.source != nil && now.UnixNano() >= d.due.Load() {
		d.ask(discoveryRefresh)
	}
}

// has returns what is known of a subject without asking, nil if that is nothing.
func (d *directory) has(subject string) *published { return d.seen.Load().entries[subject] }

// find returns what is known of a subject, and asks if that is nothing. It is errUndiscovered that there is nobody to
// ask, or no answer ever came; nil and no error, that nobody serves the subject.
func (d *directory) find(ctx context.Context, subject string) (*published, error) {
	if d.source == nil {
		return nil, errUndiscovered
	}
	if p := d.has(subject); p != nil {
		return p, nil
	}
	select {
	case <-d.ask(discoveryPause):
	case <-ctx.Done():
		return d.has(subject), endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
	if p := d.has(subject); p != nil || d.seen.Load().round > 0 {
		return p, nil
	}
	return nil, errUndiscovered
}

// endpoints lists what is exposed and was there in one of the last few answers, by subject, with the schemas that there
// are. It asks first, unless that was done in the last five seconds. Without discovery it is errUndiscovered.
func (d *directory) endpoints(ctx context.Context) ([]*published, error) {
	if d.source == nil {
		return nil, errUndiscovered
	}
	select {
	case <-d.ask(discoveryPause):
	case <-ctx.Done():
		return nil, endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
	seen := d.seen.Load()
	if seen.round == 0 {
		return nil, errUndiscovered
	}
	d.complete(seen)
	return d.seen.Load().current(), nil
}

// complete asks for the schemas that an answer left out, once for each answer, for everybody who wants the list meanwhile.
func (d *directory) complete(seen *catalogue) {
	d.filling.Lock()
	defer d.filling.Unlock()
	if d.filled >= seen.round {
		return
	}
	d.filled = seen.round
	ctx, cancel := context.WithTimeout(d.life, discoveryTimeout)
	defer cancel()
	for some := range slices.Chunk(seen.incomplete(), 8) {
		var asking sync.WaitGroup
		for _, service := range some {
			asking.Go(func() {
				instances, _ := d.source.Discover(ctx, service) // what nobody tells stays unknown
				d.mu.Lock()
				defer d.mu.Unlock()
				d.seen.Store(d.seen.Load().filled(instances))
			})
		}
		asking.Wait()
	}
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
		d.due.Store(now.Add(discoveryRefresh).UnixNano())
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
	if err == nil || len(instances) > 0 {
		d.seen.Store(d.seen.Load().next(instances, d.exposes))
	}
	if err != nil && !d.failed && d.life.Err() == nil {
		d.log.Warn("discovery failed; while nothing is known, only POST of one message is served, and what is exposed by pattern and stops is 404 rather than 503",
			"error", err)
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
