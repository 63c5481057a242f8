package middleware

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"postbus.example/endpoint"
)

// HedgePolicy says how much load [Hedge] may add to cut the tail of latencies. The zero value is the good default.
// Negative values are faults.
type HedgePolicy struct {
	// ExtraLoad is the part of the calls that may get a second attempt: by default 0.01, one in a hundred; at most 0.5. It
	// also says when, after the matching percentile of the latencies seen lately: 0.01 means the 99th. It holds for each
	// subject and for every 10 seconds, so that at 0.01 a caller needs 10 calls/s to hedge at all.
	ExtraLoad float64

	// MinDelay is the shortest time after which a second attempt goes out. By default 1 ms.
	MinDelay time.Duration

	// Budget bounds second attempts besides, together with everybody else who has the same Budget, such as [Retry]. By
	// default ExtraLoad alone does.
	Budget *Budget
}

const (
	defaultExtraLoad = 0.01
	mostExtraLoad    = 0.5
	defaultMinDelay  = time.Millisecond
)

func (p *HedgePolicy) complete() []error {
	var faults []error
	if p.ExtraLoad < 0 {
		faults = append(faults, errors.New("ExtraLoad is negative"))
	}
	if p.MinDelay < 0 {
		faults = append(faults, errors.New("MinDelay is negative"))
	}
	if p.ExtraLoad > mostExtraLoad || math.IsNaN(p.ExtraLoad) {
		faults = append(faults, fmt.Errorf("ExtraLoad %v is not between 0 and %v", p.ExtraLoad, mostExtraLoad))
	}
	if p.ExtraLoad == 0 {
		p.ExtraLoad = defaultExtraLoad
	}
	if p.MinDelay == 0 {
		p.MinDelay = defaultMinDelay
	}
	return faults
}

// Hedge sends a second attempt of a call that takes longer than nearly all calls do, and takes what comes first: the
// few calls that met a slow instance, a pause or a lost message end as others do. It acts on the client's side, on
// idempotent unary calls: those whose caller declared endpoint.Idempotent() or ReadOnly(). All others, streams among
// them, and calls directed to one instance pass through.
//
// When the second attempt goes out follows from ExtraLoad, and from the latencies of the first attempts of all calls
// of the subject behind one Hedge value; there is none before some hundred calls (2/ExtraLoad), none when the budget is
// used up, and none that the call's deadline would cut off at once. That a service has become slower it believes at
// once, that it has become quicker after half a minute.
//
// What comes first is the first reply, or the first failure that is an answer: outcome Executed, with a code that is
// not worth another attempt, such as not_found. Any other failure waits for the other attempt. When both have failed,
// the error is that of the attempt that came further (see [endpoint.Outcome]), of two that came equally far that of the
// second, with a [*RetryError] that lists both as its cause; so its outcome is that of the whole call. A first attempt
// that fails before there is a second one is the business of [Retry].
//
// The loser's context is canceled, with a cause of code canceled and reason hedge_lost, so that its service can stop
// working; Hedge returns when the loser has, which transports do at once. A loser does not count in a [Breaker]. A panic
// of the second attempt, which runs in a goroutine of its own, is a failure of it: internal, reason panic.
//
// The outermost of Retry and Hedge takes charge of a call, the others pass through: by hand, use one of them. The stack
// that Client makes of both hedges each attempt of its Retry, and both draw on one budget.
//
// A call that can't be hedged costs nothing, or, where only the budget is used up, two readings of the clock. One that
// can costs some 20 small allocations and 2 µs, for its timer and a context that can be canceled.
func Hedge(p HedgePolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Hedge", faults...)
	}
	h := &hedge{policy: p}
	return func(next endpoint.Handler) endpoint.Handler {
		b := &hedgeBinding{hedge: h, next: next}
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if !hedgeable(ctx, c) || !c.TakeRetries() {
				return next(ctx, c)
			}
			return b.call(ctx, c)
		}
	}
}

// retryHedge is Retry and Hedge as one: each attempt of the Retry is hedged. It takes charge of a call for both of
// them, or for neither. Hedges draw on the budget of the retries, too, unless they have one of their own.
func retryHedge(retries RetryPolicy, hedges HedgePolicy) endpoint.Middleware {
	faults := slices.Concat(within("Retry", retries.complete()), within("Hedge", hedges.complete()))
	if faults != nil {
		return broken("Client", faults...)
	}
	r, h := &retry{policy: retries}, &hedge{policy: hedges}
	return func(next endpoint.Handler) endpoint.Handler {
		b := &retryBinding{retry: r, plain: next}
		inner := &hedgeBinding{hedge: h, next: next}
		if hedges.Budget == nil || hedges.Budget == retries.Budget {
			inner.lender = b
		}
		b.next = func(ctx context.Context, c *endpoint.Call) (any, error) {
			if !hedgeable(ctx, c) {
				return next(ctx, c)
			}
			return inner.call(ctx, c)
		}
		b.once = b.next
		return b.handler()
	}
}

// hedgeable tells the calls that may have a second attempt. One that is directed to an instance may not: the second
// would wait in the same line.
func hedgeable(ctx context.Context, c *endpoint.Call) bool {
	return c.Side == endpoint.ClientSide && c.Spec.Kind == endpoint.UnaryKind && c.Spec.Idempotent && endpoint.InstanceFrom(ctx) == ""
}

// hedge is one middleware value.
type hedge struct {
	policy HedgePolicy
	tails  subjects[tail]
}

// tail is what is known of a subject's latencies, and what keeps the promise of ExtraLoad.
type tail struct {
	latencies
	extra Budget
}

// hedgeBinding is the middleware value around one caller.
type hedgeBinding struct {
	*hedge

	next   endpoint.Handler
	bound  subjectBinding[tail]
	lender *retryBinding // the Retry it is part of, which counts the calls in the budget of both; or nil
}

// budget returns the one that is shared with others, nil if there is none.
func (b *hedgeBinding) budget(c *endpoint.Call) *Budget {
	if b.lender != nil {
		return b.lender.of(c)
	}
	return b.policy.Budget
}

func (b *hedgeBinding) tail(c *endpoint.Call) *tail {
	t, _ := b.bound.of(&b.tails, c, func(t *tail) {
		t.extra.policy = BudgetPolicy{Ratio: b.policy.ExtraLoad, PerSecond: -1}
	})
	return t
}

// call makes one attempt of a call, and a second one beside it if it takes long.
func (b *hedgeBinding) call(ctx context.Context, c *endpoint.Call) (reply any, err error) {
	start, t, shared := c.Now(), b.tail(c), b.budget(c)
	if c.Attempt == 0 {
		t.extra.deposit(start)
		if shared != nil && b.lender == nil {
			shared.deposit(start)
		}
	}
	if delay := b.delay(ctx, t, shared, start); delay > 0 {
		reply, err = b.race(ctx, c, t, shared, delay)
	} else {
		reply, err = b.next(ctx, c)
	}
	if telling(ctx, err) {
		t.observe(time.Since(start), b.policy.ExtraLoad)
	}
	return reply, err
}

// delay returns when a second attempt goes out, 0 for never.
func (b *hedgeBinding) delay(ctx context.Context, t *tail, shared *Budget, start time.Time) time.Duration {
	delay := t.percentile()
	if delay == 0 {
		return 0
	}
	delay = max(delay, b.policy.MinDelay)
	if d, ok := ctx.Deadline(); ok && d.Sub(start) <= delay {
		return 0
	}
	if t.extra.empty(start) || shared != nil && shared.empty(start) {
		return 0
	}
	return delay
}

// telling reports whether the time that a call took says how long its first attempt takes, or at least took so far:
// one that lost to the second has taken longer than nearly all others, and counts as such.
func telling(ctx context.Context, err error) bool {
	if err == nil {
		return true
	}
	o := endpoint.OutcomeOf(err)
	return o != endpoint.NotSent && o != endpoint.NotExecuted && !errors.Is(ctx.Err(), context.Canceled)
}
