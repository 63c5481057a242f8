package middleware

import (
	"context"

	"postbus.example/endpoint"
)

// Forward lets errors that came out of a caller cross whole: what another service said of a handler's own call, or what
// the transport said of it, with code, message, details and retry advice. By default such an error crosses as internal
// without text, because a service does not answer for the words of others. Use it in proxies and gateways.
//
// The outcome is this service's: the handler ran, so it is executed. Errors of other types stay as they are, without
// text. Forward acts on the server's side, on all kinds; callers pass through.
func Forward() endpoint.Middleware {
	return endpoint.OnServer(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			if err == nil {
				return reply, nil
			}
			if e, ok := find(err); ok {
				return nil, e.AsAuthored()
			}
			return nil, err
		}
	})
}
