package endpoint

import (
	"context"
	"errors"
	"slices"
)

// Handler runs one call: it is all that middleware and transports see. A unary call returns its reply message (a
// pointer); a call that streams out passes its items to [Call.Send] and returns nil.
type Handler func(ctx context.Context, call *Call) (reply any, err error)

// Middleware decorates a Handler, unary or streaming, on either side. It surrounds the whole call, decoding and
// encoding included; it must not use the call after its next returned, and replaces a reply rather than change it.
type Middleware func(next Handler) Handler

// Chain composes middleware; the first is the outermost. Nil ones are left out; without any the handler stays as it is.
// A middleware that calls next twice with one [Call], or returns a reply that is not of the operation's type, fails the
// call as internal, with a cause that names it.
func Chain(mws ...Middleware) Middleware {
	return func(h Handler) Handler {
		inner := h
		for _, mw := range slices.Backward(mws) {
			if mw != nil && h != nil {
				inner = guard(h, inner)
				h = mw(inner)
			}
		}
		return h
	}
}

// some reports whether there is any.
func some(mws []Middleware) bool {
	return slices.ContainsFunc(mws, func(mw Middleware) bool { return mw != nil })
}

// OnServer lets middleware act on handlers only.
func OnServer(mws ...Middleware) Middleware { return onSide(ServerSide, mws) }

// OnClient lets middleware act on callers only.
func OnClient(mws ...Middleware) Middleware { return onSide(ClientSide, mws) }

func onSide(side Side, mws []Middleware) Middleware {
	chain := Chain(mws...)
	if !some(mws) {
		return chain
	}
	return func(next Handler) Handler {
		if isCallers(next) {
			if side == ClientSide {
				return chain(next)
			}
			return next
		}
		first := chain(next)
		return func(ctx context.Context, c *Call) (any, error) {
			if c.Side != side {
				c.AtOnce()
				return next(ctx, c)
			}
			reply, err := first(ctx, c)
			if err != nil {
				return reply, err
			}
			return c.judge(first, reply) // as a guard does, of which one stands outside already
		}
	}
}

// Faulty is what a constructor of middleware returns that was given faults: a middleware that refuses each call, reason
// construction, with err as the cause. On the client's side that is invalid_argument, NotSent, and says what is wrong; on the
// server's internal, NotExecuted, without text for the peer. To pass calls through would be kinder and wrong: a limit that is
// not there is found when it is needed. A nil err is a fault that nobody can name.
func Faulty(err error) Middleware {
	if err == nil {
		err = errors.New("a middleware was made with faults")
	}
	client := InvalidArgument.Wrap(err, err.Error()).WithReason(ReasonConstruction).WithOutcome(NotSent)
	server := Internal.Wrap(err, "").WithReason(ReasonConstruction).WithOutcome(NotExecuted)
	return func(Handler) Handler {
		return func(_ context.Context, c *Call) (any, error) {
			if c.Side == ServerSide {
				return nil, server
			}
			return nil, client
		}
	}
}
