package endpoint

import "context"

// WithValues gives ctx the values of another context, which must derive from it, such as one that holds a trace's span.
// Deadline and end stay those of ctx. It is for middleware on the client's side: transports that use [Wait] see through it,
// while a context.WithValue around a caller's own context makes them pay for a channel and a timer. It costs one allocation.
func WithValues(ctx, values context.Context) context.Context { return &valuesContext{ctx, values} }

type valuesContext struct {
	context.Context
	values context.Context
}

// Value finds what the other context has, and so what it derives from.
func (x *valuesContext) Value(key any) any { return x.values.Value(key) }

// bounds returns the context that ends ctx, without those around it that only add values.
func bounds(ctx context.Context) context.Context {
	if x, ok := ctx.(*valuesContext); ok {
		return bounds(x.Context)
	}
	return ctx
}
