package middleware

import (
	"context"
	"fmt"
	"time"

	"postbus.example/endpoint"
)

// Timeout bounds what it surrounds by d: on the client's side the whole call when it is outermost and each attempt when it
// stands inside of [Retry], on the server's side the handler, through its context. A call whose time is up
// fails with deadline_exceeded, reason timeout, and the outcome that the transport or the call knows; its context has a
// cause that names d. A reply that comes anyway is delivered. Of several bounds the smallest wins; where
// the context is tighter already, Timeout costs nothing.
//
// Unary calls and gathers are bounded. Streams pass through: they have no total lifetime unless the caller sets one
// with endpoint.Timeout or a context. A d that is not positive is a fault: each call is refused.
//
// For one operation endpoint.Timeout does the same for free; this is for whole groups of them, and for places inside a
// chain. By default, without either, the transport's default applies to calls whose context has no deadline.
func Timeout(d time.Duration) endpoint.Middleware {
	if d <= 0 {
		return broken("Timeout", fmt.Errorf("%v is not positive", d))
	}
	return newTimeout(d).middleware
}

// timeout is one middleware value.
type timeout struct {
	d     time.Duration
	cause *timeoutError
}

func newTimeout(d time.Duration) *timeout {
	return &timeout{d, &timeoutError{fmt.Sprintf("the timeout of %v passed", d)}}
}

// middleware is not inlined: in a copy of it WithDeadline would not be either, and that is an allocation more.
//
//go:noinline
func (t *timeout) middleware(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		deadline := t.within(ctx, c, c.Now())
		if deadline.IsZero() {
			return next(ctx, c)
		}
		own, release := endpoint.WithDeadline(ctx, deadline, t.cause)
		defer release()
		reply, err := next(own, c)
		if err != nil {
			return nil, t.told(c, deadline, err)
		}
		return reply, nil
	}
}

// within returns when a call has to end that begins now; zero if the context is tighter already, and for what is not bounded. A
// nil timeout bounds nothing.
func (t *timeout) within(ctx context.Context, c *endpoint.Call, now time.Time) time.Time {
	if t == nil || c.Spec.Kind != endpoint.UnaryKind && c.Spec.Kind != endpoint.GatherKind {
		return time.Time{}
	}
	deadline := now.Add(t.d)
	if outer, ok := ctx.Deadline(); ok && !deadline.Before(outer) {
		return time.Time{}
	}
	return deadline
}

// told is what to say of a call that failed.
func (t *timeout) told(c *endpoint.Call, deadline time.Time, err error) error {
	if timedOut(err, deadline) {
		return t.cause.verdict(c, err)
	}
	return err
}

// timedOut tells a deadline of our own from those of others: it is the sooner one, and it has passed.
func timedOut(err error, deadline time.Time) bool {
	return endpoint.CodeOf(err) == endpoint.DeadlineExceeded && !time.Now().Before(deadline)
}

// timeoutError is the cause of a context that a timeout of this package ended.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }

// Is makes errors.Is(err, context.DeadlineExceeded) hold for context.Cause, too.
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout makes it a timeout for those who ask as net.Error does.
func (e *timeoutError) Timeout() bool { return true }

// verdict gives an error the reason timeout unless it knows a better one, such as expired, and keeps its outcome.
func (e *timeoutError) verdict(c *endpoint.Call, err error) error {
	known, ok := find(err)
	switch {
	case !ok: // a bare context error: what is not provable is MaybeExecuted
		known = endpoint.DeadlineExceeded.Wrap(err, e.Error())
		if c.Side == endpoint.ServerSide {
			known = known.WithOutcome(c.Verdict(known).Outcome())
		}
	case known.Reason() != "":
		return err
	case known.Unwrap() == nil:
		known = known.WithCause(e)
	}
	return known.WithReason(endpoint.ReasonTimeout)
}
