package middleware

import (
	"context"

	"postbus.example/endpoint"
)

// Coalesce lets identical calls that run at the same time share one execution, a flight: of a hundred callers who ask the
// same thing at once, one gets through to what it surrounds, and all get its answer. Each decodes the reply's bytes into a
// message of its own, and has a copy of the reply's headers.
//
// key says what makes calls of one operation identical; "" leaves a call alone. Subject, media type and the instance a
// call is directed to always count, too. By default, for nil, it is the encoded request with all its headers, but not
// traceparent, tracestate and baggage: callers who send different credentials share nothing. A key that leaves out who asks
// shows one caller what is meant for another.
//
// A flight has the deadline and the context values of the call that started it, and is canceled when nobody waits for it any
// more. Who leaves early, the first one too, leaves alone; who has time left when the flight's deadline passes flies again.
// Other errors, panics among them (internal, reason panic), are everybody's. An answer may have been made a flight's
// time before it is asked for: a read may miss a write that had ended by then.
//
// Coalesce acts on both sides, on unary calls that are declared endpoint.ReadOnly(): a write that joins another one would not
// happen. All else passes through. Calls share within one caller or one endpoint only, so make callers once. On the
// client's side it belongs outside of [Retry], on the server's inside of [Authenticate]. A call pays for a
// hash and a copy of the request, and for the goroutine of its flight: 12 allocations and some microseconds.
func Coalesce(key func(context.Context, *endpoint.Call) string) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		fs := &flights{next: next}
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if c.Spec.Kind != endpoint.UnaryKind || !c.Spec.ReadOnly {
				return next(ctx, c)
			}
			id, ok := identify(ctx, c, key, nil)
			if !ok {
				return next(ctx, c)
			}
			return fs.call(ctx, c, id)
		}
	}
}
