package middleware

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// AdaptivePolicy says how [AdaptiveConcurrency] finds its limit. The zero value is the good default. Negative values are
// faults.
type AdaptivePolicy struct {
	// Min and Max bound the limit, a number of calls at once. By default 1 and 1,024, or Min if that is more.
	Min, Max int

	// Initial is the limit before anything is known. By default Max: what is too much is found soon.
	Initial int

	// Target is the time that calls may wait in the queue. By default 20 ms.
	Target time.Duration

	// Interval is how often the limit is judged, if at least 10 calls came since. By default 100 ms. It is also the
	// RetryAfter of what is refused.
	Interval time.Duration

	// Report is told the limit, at the first call and whenever it changed: the name is "adaptive_limit", the subject that
	// of the call. It runs in the call's goroutine and must be quick. By default nobody is told.
	Report func(name, subject string, value float64)
}

const (
	defaultTarget   = 20 * time.Millisecond
	defaultInterval = 100 * time.Millisecond
	adaptiveCalls   = 10  // an interval has at least so many
	adaptiveShrink  = 0.9 // what a late interval leaves of the limit
)

func (p *AdaptivePolicy) complete() []error {
	faults := belowZero(
		amount{"Min", float64(p.Min)}, amount{"Max", float64(p.Max)}, amount{"Initial", float64(p.Initial)},
		amount{"Target", float64(p.Target)}, amount{"Interval", float64(p.Interval)},
	)
	if p.Min == 0 {
		p.Min = 1
	}
	if p.Max == 0 {
		p.Max = max(endpoint.DefaultConcurrency, p.Min)
	}
	if p.Initial == 0 {
		p.Initial = p.Max
	}
	if p.Target == 0 {
		p.Target = defaultTarget
	}
	if p.Interval == 0 {
		p.Interval = defaultInterval
	}
	if faults != nil {
		return faults
	}
	if p.Min > p.Max {
		faults = append(faults, fmt.Errorf("a Min of %d is more than a Max of %d", p.Min, p.Max))
	}
	if p.Initial < p.Min || p.Initial > p.Max {
		faults = append(faults, fmt.Errorf("an Initial of %d is not between a Min of %d and a Max of %d", p.Initial, p.Min, p.Max))
	}
	return faults
}

// AdaptiveConcurrency bounds how many calls of an endpoint run at once by a limit that it finds itself. It watches how
// long calls waited in the endpoint's queue, from their receipt until they come here; how long handlers take is none of
// its business, so an endpoint that is slow and not busy is left alone.
//
//	all of an interval's calls waited longer than Target   limit = 0.9 × the most that ran at once, at least half the limit
//	otherwise, if more than half of the limit was in use   limit = limit + √limit
//
// As in CoDel (RFC 8289) the shortest wait of an interval counts: a burst leaves some calls that did not wait, a queue that
// stands leaves none. While it stands, and until an interval has passed without need, calls that waited longer than Target
// are refused as well, whatever the limit: their callers may have left, and the fresh ones behind them have not. So under
// overload the service goes on at its capacity, with calls that waited for at most about Target. A call that finds the
// endpoint idle for as long as that is let through however long it waited, because then its queue was not the reason.
//
// What is refused gets resource_exhausted, outcome NotExecuted and a RetryAfter, before it is decoded; the reason is
// backlog_full where the limit was reached and backlog_wait where the call waited too long. A caller's [Retry] may
// try both again.
//
// It acts on the server's side, callers pass through. Streams of all kinds count for as long as they last. Each endpoint has
// a limit of its own, because each has its own queue. It belongs outside of whatever takes time, which would count as
// waiting: an Authenticate that asks others, a RateLimitWait. It costs no allocation, refused or not, but a lock held for
// a few dozen nanoseconds, twice. By default, without it, endpoint.Concurrency and endpoint.Backlog are the limits.
func AdaptiveConcurrency(p AdaptivePolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("AdaptiveConcurrency", faults...)
	}
	full := deny("the service is at its limit", endpoint.ReasonBacklogFull).server.WithRetryAfter(p.Interval)
	stale := deny("the call waited too long", endpoint.ReasonBacklogWait).server.WithRetryAfter(p.Interval)
	return endpoint.OnServer(func(next endpoint.Handler) endpoint.Handler {
		a := &adaptive{policy: &p, full: full, stale: stale, limit: float64(p.Initial)}
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			refusal, changed := a.enter(c.Received())
			if refusal == nil {
				defer a.leave() // also when Report panics
			}
			if changed > 0 && p.Report != nil {
				p.Report("adaptive_limit", c.Subject, float64(changed))
			}
			if refusal != nil {
				return nil, refusal
			}
			return next(ctx, c)
		}
	})
}

// adaptive is the limit of one endpoint.
//
// failsafe-go v0.9.8 has an adaptive limiter of much thought, and is not used. It judges by how long executions take
// against how long they used to, measured by its own permits, and takes no other signal: a database that became slow
// would shrink the limit of an endpoint that nobody waits for. It needs a digest for quantiles and a bit set from others, an
// allocation for each call, and a second or more to react, because latencies are noisy. A wait in a queue is zero or
// it is trouble, so a minimum is enough.
//
// Nor is the limit alone enough. Where the queue's own concurrency is the bottleneck, a limit just below it leaves part of
// the capacity unused (all of it, if that is 1), and one just above it lets the queue stand. Refusing what is stale
// keeps both the handlers busy and the queue short.
type adaptive struct {
	policy      *AdaptivePolicy
	full, stale *endpoint.Error

	mu       sync.Mutex
	limit    float64
	inside   int
	reported int

	// The current interval.
	begin    time.Time
	calls    int
	shortest time.Duration // wait
	most     int           // calls inside

	standing bool      // the queue stands: stale calls are refused
	shed     bool      // one was, in this interval
	idle     time.Time // since then, if nobody is inside
}

// enter counts a call in, or refuses it. changed is the new limit if there is one to report, else 0.
func (a *adaptive) enter(received time.Time) (refusal *endpoint.Error, changed int) {
	now := time.Now()
	var wait time.Duration
	if !received.IsZero() { // a transport that does not tell
		wait = max(now.Sub(received), 0)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls >= adaptiveCalls && now.Sub(a.begin) >= a.policy.Interval {
		a.judge()
		a.calls = 0
	}
	if a.calls == 0 {
		a.begin, a.shortest, a.most, a.shed = now, wait, a.inside, false
	}
	a.calls++
	a.shortest = min(a.shortest, wait)
	limit := int(math.Ceil(a.limit))
	if limit != a.reported {
		a.reported, changed = limit, limit
	}
	switch {
	case a.standing && wait > a.policy.Target && (a.inside > 0 || now.Sub(a.idle) <= a.policy.Target):
		a.shed = true
		return a.stale, changed
	case a.inside >= limit:
		return a.full, changed
	}
	a.inside++
	a.most = max(a.most, a.inside)
	return nil, changed
}

// judge ends an interval.
func (a *adaptive) judge() {
	late := a.shortest > a.policy.Target
	switch most := float64(a.most); {
	case late: // a limit that is not used is not what made them late
		a.limit = max(min(a.limit, most)*adaptiveShrink, a.limit/2, float64(a.policy.Min))
	case 2*most > a.limit:
		a.limit = min(a.limit+math.Sqrt(a.limit), float64(a.policy.Max))
	}
	a.standing = late || a.standing && a.shed
}

func (a *adaptive) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inside--; a.inside == 0 {
		a.idle = time.Now()
	}
}
