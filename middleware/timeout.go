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
	cause := &timeoutError{fmt.Sprintf("the timeout of %v passed", d)}
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			now := c.Now()
			if c.Spec.Kind != endpoint.UnaryKind && c.Spec.Kind != endpoint.GatherKind {
				return next(ctx, c)
			}
			deadline := now.Add(d)
			if outer, ok := ctx.Deadline(); ok && !deadline.Before(outer) {
				return next(ctx, c)
			}
			own, release := endpoint.WithDeadline(ctx, deadline, cause)
			defer release()
			reply, err := next(own, c)
			if err != nil && timedOut(err, deadline) {
				return nil, cause.verdict(c, err)
			}
			return reply, err
		}
	}
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
