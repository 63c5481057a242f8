package middleware

import (
	"context"

	"postbus.example/endpoint"
)

// Recover turns a panic of what it surrounds into an error: internal, reason panic, without a word for the peer; the value
// and the stack are in its cause, an [*endpoint.PanicError]. It acts on both sides and on all kinds. Without it
// no panic reaches the user's process either: endpoints and callers catch what comes out of their functions and chains. But
// that is outside of every middleware; Recover turns a panic into an error where it stands, so that what surrounds it, such
// as logs and metrics, sees an error.
//
// The body of a loop over a stream is the consumer's: its panic is none of Recover's business and goes on to the consumer.
// runtime.Goexit goes on, too.
func Recover() endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (reply any, err error) {
			defer func() {
				if p := recover(); p != nil {
					e := endpoint.Recovered(p)
					if c.Side == endpoint.ServerSide {
						e = e.WithOutcome(c.Verdict(e).Outcome()) // the call knows whether the function was entered
					}
					reply, err = nil, e
				}
			}()
			c.AtOnce()
			return next(ctx, c)
		}
	}
}
