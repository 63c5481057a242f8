package middleware

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// FaultPolicy says what [Fault] does to calls. The zero value does nothing. Shares are parts of one, from 0 to 1; shares
// out of that, a negative Latency, and what is set in part only (a share without what it is the share of, or the
// reverse) are faults.
type FaultPolicy struct {
	// Armed is asked at each call: while it is false nothing happens. It is given nothing of the call, so that no request can
	// switch faults on. The Load of an atomic.Bool will do. It must be quick. By default, for nil, nothing ever happens.
	Armed func() bool

	// Latency is how much later LatencyShare of the calls start, or less if their context ends first. By default none do.
	Latency      time.Duration
	LatencyShare float64

	// ErrorShare of the calls fail with Err. By default none do, and Err is unavailable.
	ErrorShare float64
	Err        *endpoint.Error

	// After fails them after they were executed, in place of their replies: what a service that dies before it answers looks
	// like. By default they fail before.
	After bool

	// Seed makes the choice the same in every run, for calls that come one after the other. By default, for 0, it differs.
	Seed uint64
}

func (p *FaultPolicy) complete() []error {
	var faults []error
	fault := func(is bool, format string, a ...any) {
		if is {
			faults = append(faults, fmt.Errorf(format, a...))
		}
	}
	share := func(name string, v float64) {
		fault(!(v >= 0 && v <= 1), "%s %v is not between 0 and 1", name, v)
	}
	share("LatencyShare", p.LatencyShare)
	share("ErrorShare", p.ErrorShare)
	fault(p.Latency < 0, "Latency is negative")
	fault(p.Latency == 0 && p.LatencyShare > 0, "LatencyShare has no Latency")
	fault(p.Latency > 0 && p.LatencyShare == 0, "Latency has no LatencyShare")
	fault(p.Err != nil && p.ErrorShare == 0, "Err has no ErrorShare")
	fault(p.After && p.ErrorShare == 0, "After has no ErrorShare")
	if p.Err == nil {
		p.Err = endpoint.Unavailable.New("a fault was injected")
	}
	fault(p.Err.Code == endpoint.OK, "Err has the code ok")
	if p.Err.Reason() == "" {
		p.Err = p.Err.WithReason(endpoint.ReasonInjected)
	}
	return faults
}

// Fault injects latency and errors while it is armed, to see what callers, retries and alarms make of them. Errors have the
// reason injected unless Err has one of its own, and the truth about the outcome: NotSent on the client's
// side and NotExecuted on the server's, or Executed with After. A call that fails by itself keeps its error.
//
// Fault acts on both sides, where it stands, on all kinds: streams when they are opened, with After at their end. Not
// armed it costs a call of Armed, without Armed nothing. It belongs next to what it is to stand for: innermost on
// the client's side for the network, on the server's for the handler.
func Fault(p FaultPolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Fault", faults...)
	}
	if p.Armed == nil {
		return endpoint.Chain()
	}
	d := &dice{}
	if p.Seed != 0 {
		d.own = rand.New(rand.NewPCG(p.Seed, p.Seed))
	}
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if !p.Armed() {
				return next(ctx, c)
			}
			late, failing := d.throw()
			if late < p.LatencyShare && !sleep(ctx, p.Latency) {
				return nil, endpoint.ContextError(ctx).WithOutcome(untouched(c))
			}
			switch {
			case failing >= p.ErrorShare:
				return next(ctx, c)
			case !p.After:
				return nil, p.Err.WithOutcome(untouched(c))
			}
			if _, err := next(ctx, c); err != nil {
				return nil, err
			}
			return nil, p.Err.WithOutcome(endpoint.Executed)
		}
	}
}

// dice gives each call its two numbers.
type dice struct {
	mu  sync.Mutex
	own *rand.Rand // nil: the runtime's
}

func (d *dice) throw() (late, failing float64) {
	if d.own == nil {
		return rand.Float64(), rand.Float64()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own.Float64(), d.own.Float64()
}
