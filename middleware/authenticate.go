package middleware

import (
	"context"
	"errors"

	"postbus.example/endpoint"
)

// Authenticate lets f decide who calls, before the request is decoded. f looks at the headers of the call, and returns the
// context for what is inside, such as one that holds who it is. Its error refuses the call, which is not executed:
// an [*endpoint.Error] crosses as it is, such as permission_denied or a Retry-After; a bare [endpoint.Code] or a context's
// error with its code; every other error is unauthenticated, without text, and the cause for logs. An
// error that came out of a caller, of a service that knows the users, say, is internal to the peer, as always: that it
// can't be asked does not mean that the caller is nobody. What such a service says of a caller is for f to put in its own words.
//
// f MUST return the context it was given or one derived of it; none, or another one, is internal. It runs in the
// call's goroutine, for many calls at once. It may ask for c.Message or c.Body, and pays for it then.
//
// Authenticate acts on the server's side, on all kinds, streams when they are opened; callers pass through. It costs nothing
// besides f. What answers without asking the handler, as [Cache] and [Coalesce] do, stands inside of it. A nil f
// is a fault: each call is refused.
func Authenticate(f func(context.Context, *endpoint.Call) (context.Context, error)) endpoint.Middleware {
	if f == nil {
		return broken("Authenticate", errors.New("the function is nil"))
	}
	stranger := endpoint.Unauthenticated.New("").WithOutcome(endpoint.NotExecuted)
	none := strayed("middleware.Authenticate: the function returned a nil context without an error")
	foreign := strayed("middleware.Authenticate: the function returned a context that is not derived of the call's")
	return endpoint.OnServer(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			own, err := f(ctx, c)
			switch {
			case err != nil:
				if e, ok := authored(err); ok {
					return nil, e.WithOutcome(endpoint.NotExecuted)
				}
				return nil, stranger.WithCause(err)
			case own == nil:
				return nil, none
			case own != ctx && endpoint.FromContext(own) != endpoint.FromContext(ctx):
				return nil, foreign // its deadline would not be the call's
			}
			return next(own, c)
		}
	})
}

func strayed(text string) *endpoint.Error {
	return endpoint.Internal.Wrap(errors.New(text), "").WithOutcome(endpoint.NotExecuted)
}
