package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"postbus.example/endpoint"
)

// FromKit adapts middleware in the style of Go kit, functions around
//
//	func(ctx context.Context, request any) (response any, err error)
//
// without importing it; the first is the outermost. It acts on the side where it stands, on all kinds: the request is the
// message (a pointer), nil where requests are a stream; the response is the reply message, nil where
// replies are a stream. Each function is applied once to each endpoint or caller.
//
// The request is decoded before the adapted middleware runs, because it gets to see it, so a refusal is not as cheap as
// that of a native middleware. The adapted middleware
//
//   - MUST pass on the context it was given, or one derived of it;
//   - MUST pass on the request as it is, and MUST NOT change it; it may return another response of the same type;
//   - MUST call next at most once, and return after next did. To try again is the business of [Retry].
//
// Where one of these does not hold, the call fails as internal. An error of its own (a limiter's, a breaker's) crosses as
// unknown without text unless it is an [*endpoint.Error]; on the client's side an error without a call of next is NotSent.
func FromKit[E ~func(context.Context, any) (any, error)](m func(E) E, more ...func(E) E) endpoint.Middleware {
	var faults []error
	for i, f := range append([]func(E) E{m}, more...) {
		if f == nil {
			faults = append(faults, fmt.Errorf("function %d is nil", i))
		}
	}
	if faults != nil {
		return broken("FromKit", faults...)
	}
	more = slices.Clone(more) // the caller's slice may change
	return func(next endpoint.Handler) endpoint.Handler {
		kit := E(kitNext(next))
		for _, f := range slices.Backward(more) {
			kit = f(kit)
		}
		kit = m(kit)
		if kit == nil {
			return broken("FromKit", errors.New("a function returned nil"))(next)
		}
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			k := kitCall{Context: ctx, call: c}
			if !c.Spec.Kind.StreamsIn() {
				m, err := c.Message()
				if err != nil {
					return nil, err
				}
				k.request = m
			}
			reply, err := kit(&k, k.request)
			if err != nil && c.Side == endpoint.ClientSide && !k.entered.Load() {
				return nil, notSent(err)
			}
			return reply, err
		}
	}
}

// kitCall carries the call past middleware that does not know of it. It is a context itself, to save an allocation.
type kitCall struct {
	context.Context

	call    *endpoint.Call
	request any
	entered atomic.Bool
}

type kitKey struct{}

// Value finds the call of this adapter, and otherwise what the context holds.
func (k *kitCall) Value(key any) any {
	if key == (kitKey{}) {
		return k
	}
	return k.Context.Value(key)
}

// kitNext is the innermost function: back from (context, request) to the call.
func kitNext(next endpoint.Handler) func(context.Context, any) (any, error) {
	return func(ctx context.Context, request any) (any, error) {
		if ctx == nil {
			return nil, endpoint.Internal.New("a middleware made for Go kit passed on a nil context")
		}
		k, ok := ctx.Value(kitKey{}).(*kitCall)
		switch {
		case !ok:
			return nil, endpoint.Internal.New("a middleware made for Go kit did not pass on its context")
		case request != k.request:
			return nil, endpoint.Internal.Errorf("a middleware made for Go kit passed on %T, not the request it was given", request)
		case k.entered.Swap(true):
			return nil, endpoint.Internal.New("a middleware made for Go kit called next twice")
		}
		return next(ctx, k.call)
	}
}

// notSent says truthfully of an error that next was never called. The error itself stays in the chain.
func notSent(err error) error {
	if e, ok := err.(*endpoint.Error); ok && e != nil { //nolint:errorlint // what wraps one stays in the chain, below
		return e.WithOutcome(endpoint.NotSent)
	}
	if e, ok := find(err); ok {
		return e.WithCause(err).WithOutcome(endpoint.NotSent)
	}
	return endpoint.CodeOf(err).Wrap(err, err.Error()).WithOutcome(endpoint.NotSent)
}
