package middleware

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
)

// RateLimitWait lets calls wait for their turn instead of refusing them: until the limiter has a token, at most until the
// call's deadline. A call whose turn would come later than that is refused at once, as [RateLimit] does it:
// resource_exhausted with a RetryAfter, reason local_limit and outcome NotSent on the client's side, rate_limited and
// NotExecuted on the server's. A call whose context ends while it waits gives its turn back, and fails as canceled or
// deadline_exceeded (reason expired) with the same outcome. Streams of all kinds wait once, before they are opened; calls
// without a deadline wait as long as it takes.
//
// A [*rate.Limiter] fits as it is: turns are reservations, first come, first served. A turn given back helps those that
// come afterwards; who has a later turn already keeps it. Of other limiters RateLimitWait needs one of the methods
//
//	ReserveN(time.Time, int) *rate.Reservation // the turn of one call
//	RetryAfter() time.Duration                 // when to ask Allow again, at least a millisecond from now; 0: never
//
// and calls that have to ask again are in no order. A nil limiter, or one with neither method, is a fault: each call is
// refused.
//
// It belongs on the client's side, to keep what this process sends at a rate. At the server a call that waits holds a place
// among those that run, and what comes too fast is better told so: use [RateLimit] there. A call that need not wait
// costs nothing, one that waits a timer.
func RateLimitWait(l Limiter) endpoint.Middleware {
	if absent(l) {
		return broken("RateLimitWait", errors.New("the limiter is nil"))
	}
	w := &rateWait{limiter: l, hint: retryAfter(l), limited: rateLimited()}
	var turn func(context.Context, *endpoint.Call) error
	switch l := l.(type) {
	case reserver:
		turn = func(ctx context.Context, c *endpoint.Call) error { return w.reserve(ctx, c, l) }
	case interface{ RetryAfter() time.Duration }:
		turn = w.poll
	default:
		return broken("RateLimitWait", errors.New("the limiter can neither reserve nor tell when to try again"))
	}
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			// Allow gives no token away that somebody waits for: with reservations there is none left.
			if !l.Allow() {
				if err := turn(ctx, c); err != nil {
					return nil, err
				}
			}
			return next(ctx, c)
		}
	}
}

type reserver interface {
	ReserveN(now time.Time, n int) *rate.Reservation
}

type rateWait struct {
	limiter Limiter
	hint    func() time.Duration
	limited denial
}

// reserve waits for a turn that is this call's alone.
func (w *rateWait) reserve(ctx context.Context, c *endpoint.Call, l reserver) error {
	now := time.Now()
	// A reservation that is given back is not always whole. So ask first, where that tells.
	if wait := w.hint(); wait > 0 && late(ctx, now.Add(wait)) {
		return w.limited.after(c, wait)
	}
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	switch {
	case !r.OK() || wait == rate.InfDuration:
		r.Cancel()
		return w.limited.after(c, 0) // it will never come
	case late(ctx, now.Add(wait)):
		r.Cancel()
		return w.limited.after(c, max(wait, leastWait))
	}
	if err := linger(ctx, c, wait); err != nil {
		r.Cancel()
		return err
	}
	return nil
}

// poll asks again whenever the limiter says so.
func (w *rateWait) poll(ctx context.Context, c *endpoint.Call) error {
	for {
		wait := w.hint()
		if wait <= 0 {
			return w.limited.after(c, wait)
		}
		wait = max(wait, leastWait)
		if late(ctx, time.Now().Add(wait)) {
			return w.limited.after(c, wait)
		}
		if err := linger(ctx, c, wait); err != nil {
			return err
		}
		if w.limiter.Allow() {
			return nil
		}
	}
}

// late tells that at the given time the call's deadline has come.
func late(ctx context.Context, at time.Time) bool {
	d, ok := ctx.Deadline()
	return ok && !at.Before(d)
}

// linger waits before the call's deadline, or says how the call ended meanwhile.
func linger(ctx context.Context, c *endpoint.Call, d time.Duration) error {
	_, done := endpoint.Wait(ctx)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		if ctx.Err() == nil {
			return nil
		}
	case <-done:
	}
	e := endpoint.ContextError(ctx).WithOutcome(untouched(c))
	if e.Code == endpoint.DeadlineExceeded {
		e = e.WithReason(endpoint.ReasonExpired)
	}
	return e
}
