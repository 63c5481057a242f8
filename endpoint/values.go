package endpoint

import "context"

// WithValues gives ctx the values of another context, which must derive from it, such as one that holds a trace's span.
// Deadline and end stay those of ctx. It is for middleware on the client's side: transports that use [Wait] see through it,
// while a context.WithValue around a caller's own context makes them pay for a channel and a timer. It costs one allocation.
// A context of the middleware's own is seen through as well if it has the method Bounds() context.Context, which returns ctx.
func WithValues(ctx, values context.Context) context.Context { return &valuesContext{ctx, values} }

type valuesContext struct {
	context.Context
	values context.Context
}

// Bounds returns the context whose deadline and end these are.
func (x *valuesContext) Bounds() context.Context { return x.Context }

// Value finds what the other context has, and so what it derives from.
func (x *valuesContext) Value(key any) any { return x.values.Value(key) }

// bounds returns the context that ends ctx, without those around it that only add values.
func bounds(ctx context.Context) context.Context {
	switch x := ctx.(type) {
	case *callContext:
		return ctx
	case interface{ Bounds() context.Context }:
		return bounds(x.Bounds())
	}
	return ctx
}
