package middleware

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"postbus.example/endpoint"
)

// retrial is a call whose first attempt failed.
type retrial struct {
	*retryBinding
	failure // of the last attempt

	call    *endpoint.Call
	budget  *Budget
	header  endpoint.Header // the call's, before inner middleware wrote to it
	trace   string          // likewise
	start   time.Time       // of the first attempt
	bound   time.Time       // of that; zero: none
	cause   *timeoutError   // whose bound it was
	last    *endpoint.Call  // the last attempt
	outcome endpoint.Outcome
	history RetryError
	tries   int  // those that count for Attempts
	quick   bool // the quick retry was made
}

func (t *retrial) record(a *endpoint.Call, f failure) {
	t.last, t.failure = a, f
	if o := endpoint.OutcomeOf(f.err); t.history.Total == 0 || rank(o) > rank(t.outcome) {
		t.outcome = o
	}
	t.history.add(RetryAttempt{Attempt: a.Attempt, Instance: a.Instance(), Took: f.took, Err: f.err})
}

// after is all that comes after the first attempt, which failed.
func (t *retrial) after(ctx context.Context, err error) (any, error) {
	end := t.timeout.within(ctx, t.call, t.start)
	if !end.IsZero() {
		own, release := endpoint.WithDeadline(ctx, end, t.timeout.cause)
		defer release()
		ctx = own
	}
	if t.cause != errAttempt { // the bound is the call's
		t.bound = time.Time{}
	}
	t.record(t.call, failed(t.call, t.start, t.bound, err))
	reply, err := t.run(ctx)
	if err != nil && !end.IsZero() {
		return nil, t.timeout.told(t.call, end, err)
	}
	return reply, err
}

// run tries again as the law allows and as the last error asks for.
func (t *retrial) run(ctx context.Context) (any, error) {
	for !t.call.Committed() && ctx.Err() == nil {
		var reply any
		var tried bool
		if t.policy.WaitForService && missing(t.err) {
			reply, tried = t.await(ctx)
		} else {
			reply, tried = t.again(ctx)
		}
		switch {
		case !tried:
			return nil, t.failed(ctx)
		case t.err == nil:
			return reply, nil
		}
	}
	return nil, t.failed(ctx)
}

// again makes one more attempt on the budget, after its pause; it reports false if there must be none.
func (t *retrial) again(ctx context.Context) (reply any, tried bool) {
	if t.tries >= t.policy.Attempts {
		return nil, false
	}
	least, spread := t.pause()
	if spread <= 0 {
		return nil, false
	}
	if d, ok := ctx.Deadline(); ok {
		spread = min(spread, time.Until(d)-least) // so that jitter alone never ends a call
		if spread <= 0 {
			return nil, false
		}
	}
	if !t.budget.take(t.call) || !sleep(ctx, least+rand.N(spread)) {
		return nil, false
	}
	t.tries++
	return t.try(ctx), true
}

// pause applies the law to the last error: how long to wait at least and how much more at random; a spread of 0 means never.
func (t *retrial) pause() (least, spread time.Duration) {
	if e, ok := find(t.err); ok {
		least = e.RetryAfter
	}
	switch law(t.err, t.call.Spec.Idempotent, t.late) {
	case tryQuick:
		if t.quick {
			return 0, 0
		}
		t.quick = true
		return least + quickLeast, quickMost - quickLeast
	case tryOnBudget:
		spread = t.policy.Backoff
		for range t.tries - 1 {
			if spread >= t.policy.MaxBackoff/2 {
				return least, t.policy.MaxBackoff
			}
			spread *= 2
		}
		return least, spread
	default:
		return 0, 0
	}
}

// try makes an attempt and keeps how it went.
func (t *retrial) try(ctx context.Context) any {
	a := t.call.Retry()
	a.Header = t.header.Clone()
	a.SetTrace(t.trace)
	bound := t.bind(ctx, a, t.budget, a.Received(), time.Time{}, t.tries >= t.policy.Attempts)
	reply, err := t.attempt(ctx, a, bound)
	if err != nil {
		t.record(a, failed(a, a.Received(), bound, err))
		return nil
	}
	t.failure = failure{}
	t.call.Adopt(a)
	return reply
}

// await waits at the gate of the subject, and tries when it is let through. It reports false if the context ended first.
func (t *retrial) await(ctx context.Context) (reply any, tried bool) {
	key := gateKey(ctx, t.call)
	g := t.gates.enter(key)
	defer t.gates.leave(key, g)
	for {
		poll, ok := g.wait(ctx)
		if !ok {
			return nil, false
		}
		if poll {
			g.poll(ctx, func() error {
				reply = t.try(ctx)
				return t.err
			})
		} else {
			reply = t.try(ctx)
		}
		if t.err == nil || !missing(t.err) || t.call.Committed() {
			return reply, true
		}
	}
}

// failed is the error of the whole call: the last attempt's, with the outcome of all.
func (t *retrial) failed(ctx context.Context) error {
	t.call.Adopt(t.last)
	e, ok := find(t.err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && endpoint.CodeOf(t.err) != endpoint.Canceled:
		e = endpoint.ContextError(ctx) // the caller left while we waited
	case t.history.Total == 1:
		return t.err
	case !ok:
		e = endpoint.CodeOf(t.err).New("")
	}
	h := t.history
	return e.WithOutcome(t.outcome).WithCause(&h)
}

// sleep reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
