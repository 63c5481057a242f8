package middleware

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// RetryPolicy says how [Retry] tries again. The zero value is the good default. Negative values are faults.
type RetryPolicy struct {
	// Attempts is how often a call is tried at most, the first attempt included. By default 3; 1 means once. The polls
	// of WaitForService do not count.
	Attempts int

	// AttemptTimeout bounds each attempt of an idempotent unary call, so that there is time for another one. By default
	// a third of the time left; an attempt that will be the last in any case, because it is the Attempts-th or the budget
	// is used up, gets all of it. Without a deadline there is no such bound.
	AttemptTimeout time.Duration

	// WaitForService lets calls wait until their deadline for a service that nobody serves (no_responders) or a connection
	// that is down (disconnected), instead of failing. Of the callers that wait on one subject behind one Retry value, one at a
	// time sends its own call as the poll, after 5 ms, doubling to 250 ms; when it got through, or is out for more
	// than 250 ms, the others go. Polls are outside the budget. By default such calls fail soon.
	WaitForService bool

	// Budget bounds the attempts beyond the first, together with everybody else who has the same Budget. By default there
	// is one for each middleware value and service, with the defaults of [BudgetPolicy]. Of more than 1,000 services, which a
	// bridge may be made to call by whoever chooses its paths, the rest share one.
	Budget *Budget

	// Backoff is the longest pause before the second attempt; it doubles with each further one up to MaxBackoff. The
	// pause is random between 0 and that (full jitter), and comes on top of the service's Retry-After. By default 25 ms
	// and 1 s.
	Backoff, MaxBackoff time.Duration
}

const (
	defaultAttempts   = 3
	defaultBackoff    = 25 * time.Millisecond
	defaultMaxBackoff = time.Second
	quickLeast        = 5 * time.Millisecond // the quick retry's pause
	quickMost         = 20 * time.Millisecond
	attemptShare      = 3 // an attempt gets the time left divided by this
	mostBudgets       = 1000
)

func (p *RetryPolicy) complete() []error {
	faults := belowZero(
		amount{"Attempts", float64(p.Attempts)}, amount{"AttemptTimeout", float64(p.AttemptTimeout)},
		amount{"Backoff", float64(p.Backoff)}, amount{"MaxBackoff", float64(p.MaxBackoff)},
	)
	if p.Attempts == 0 {
		p.Attempts = defaultAttempts
	}
	if p.Backoff == 0 {
		p.Backoff = defaultBackoff
	}
	if p.MaxBackoff == 0 {
		p.MaxBackoff = max(defaultMaxBackoff, p.Backoff)
	}
	if p.MaxBackoff < p.Backoff {
		faults = append(faults, fmt.Errorf("MaxBackoff %v is less than Backoff %v", p.MaxBackoff, p.Backoff))
	}
	return faults
}

// Retry tries calls again where that is safe and helps, by one law:
//
//	outcome and code                                          what Retry does
//	NotSent, NotExecuted; unavailable, reason no_responders   one quick retry after 5 to 20 ms, on the budget;
//	                                                          with WaitForService it waits instead
//	NotSent, NotExecuted; unavailable                         retried on the budget
//	NotSent, NotExecuted; resource_exhausted, RetryAfter      retried on the budget
//	reasons breaker_open, local_limit, rate_limited           never
//	NotSent, NotExecuted; any other code                      never
//	MaybeExecuted, Executed; unavailable, aborted or the      retried on the budget if declared idempotent
//	attempt's own deadline
//	anything else; streams once an item passed                never
//
// A RetryAfter is obeyed; one that is negative, or does not fit into the time left, ends it. So does a budget that is used
// up. Whether a call is idempotent is what the caller declared: endpoint.Idempotent() or ReadOnly().
//
// After more than one attempt the error is that of the last one, with its code, message, details and reason, and a
// [*RetryError] as its cause, which lists the attempts and unwraps to the last one's error. Its outcome is that of the whole
// call: if any attempt may have been executed, so may the call.
//
// Retry acts on the client's side, on all kinds; handlers pass through. Inside of another Retry it passes
// through, too. The good path allocates nothing; idempotent unary calls pay for the bound of their attempt,
// calls with headers for a copy of them.
func Retry(p RetryPolicy) endpoint.Middleware { return retryWithin(layers{}, p) }

// retryWithin is Retry and the layers next to it in one: a call that goes well at once has one context for Timeout and its
// attempt.
func retryWithin(l layers, p RetryPolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Retry", faults...)
	}
	r := &retry{policy: p, layers: l}
	return func(next endpoint.Handler) endpoint.Handler {
		b := &retryBinding{retry: r, once: next, next: (&layers{breaker: l.breaker}).around(next), plain: l.around(next)}
		return b.handler()
	}
}

// retry is one middleware value.
type retry struct {
	layers

	policy RetryPolicy
	gates  gates

	mu      sync.Mutex
	budgets map[string]*Budget // by service, if the policy has none
}

func (r *retry) budget(service string) *Budget {
	if r.policy.Budget != nil {
		return r.policy.Budget
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.budgets[service] == nil && len(r.budgets) >= mostBudgets {
		service = "" // no service has this name
	}
	b := r.budgets[service]
	if b == nil {
		b = &Budget{}
		if r.budgets == nil {
			r.budgets = map[string]*Budget{}
		}
		r.budgets[service] = b
	}
	return b
}

// retryBinding is the middleware value around one caller.
type retryBinding struct {
	*retry

	once     endpoint.Handler // what a first attempt calls, past the breaker
	next     endpoint.Handler // what further ones call
	plain    endpoint.Handler // where somebody else is in charge
	bound    atomic.Pointer[boundBudget]
	circuits subjectBinding[circuit]
}

type boundBudget struct {
	service string
	budget  *Budget
}

// of returns the budget of a call: looked up once, since a caller belongs to one service.
func (b *retryBinding) of(c *endpoint.Call) *Budget {
	if bound := b.bound.Load(); bound != nil && bound.service == c.Spec.Service {
		return bound.budget
	}
	bound := &boundBudget{c.Spec.Service, b.budget(c.Spec.Service)}
	b.bound.Store(bound)
	return bound.budget
}

// failure is how an attempt failed; zero if it did not.
type failure struct {
	err  error
	late bool // its own deadline passed
	took time.Duration
}

var errAttempt = &timeoutError{"the attempt's time is up"}

// attempt makes a further attempt within a bound, which is zero where there is none.
func (b *retryBinding) attempt(ctx context.Context, a *endpoint.Call, deadline time.Time) (any, error) {
	if deadline.IsZero() {
		return b.next(ctx, a)
	}
	own, release := endpoint.WithDeadline(ctx, deadline, errAttempt)
	defer release()
	return b.next(own, a)
}

// failed is how an attempt failed that began at a time, and had a bound.
func failed(a *endpoint.Call, start, deadline time.Time, err error) failure {
	f := failure{err: err, took: time.Since(start)}
	if f.late = !deadline.IsZero() && timedOut(err, deadline); f.late {
		f.err = errAttempt.verdict(a, err)
	}
	return f
}

// bind returns the deadline of one attempt, zero if it is the call's, which is that of the context or end. last tells that there
// can be none after it.
func (b *retryBinding) bind(ctx context.Context, a *endpoint.Call, budget *Budget, start, end time.Time, last bool) time.Time {
	if !a.Spec.Idempotent || a.Spec.Kind != endpoint.UnaryKind {
		return time.Time{}
	}
	outer, ok := end, true
	if end.IsZero() {
		outer, ok = ctx.Deadline()
	}
	d := b.policy.AttemptTimeout
	if d == 0 {
		if !ok || last || budget.empty(start) {
			return time.Time{}
		}
		d = outer.Sub(start) / attemptShare
	}
	deadline := start.Add(d)
	if ok && !deadline.Before(outer) {
		return time.Time{}
	}
	return deadline
}
