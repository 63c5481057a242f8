package middleware

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"postbus.example/endpoint"
)

// Fallback lets f answer a call whose service can't: one that failed as unavailable, deadline_exceeded, resource_exhausted,
// internal, unknown or data_loss, whatever the outcome and whoever said so. f is given the error, and returns the reply
// message (a pointer), or an error, which is that of the call then: the one it was given, where it has no better answer.
// All other codes are answers; a caller who gave up wants none. Neither gets to f.
//
// When the call's own deadline has passed, the context of f has ended: f then answers from memory or not at all. A reply
// of the wrong type is internal and names the types. The reply's metadata gets Cache-Control: no-store unless f said
// something else, so that no [Cache] around it keeps the makeshift.
//
// Fallback acts on the client's side; handlers pass through. Streams fall back until the first item passed, either way: f
// sends items by c.Send and returns nil where replies are a stream. The good path costs nothing. Metrics, logs
// and [Retry] inside of Fallback see the failure; outside of it the call went well. A nil f is a fault: each call is refused.
func Fallback(f func(ctx context.Context, c *endpoint.Call, err error) (any, error)) endpoint.Middleware {
	if f == nil {
		return broken("Fallback", errors.New("the function is nil"))
	}
	return endpoint.OnClient(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			if err == nil || !down(err) || c.Committed() || errors.Is(ctx.Err(), context.Canceled) {
				return reply, err
			}
			return fallBack(ctx, c, f, err)
		}
	})
}

// down tells the codes of a service that can't answer from answers.
func down(err error) bool {
	switch endpoint.CodeOf(err) {
	case endpoint.Unavailable, endpoint.DeadlineExceeded, endpoint.ResourceExhausted,
		endpoint.Internal, endpoint.Unknown, endpoint.DataLoss:
		return true
	default:
		return false
	}
}

func fallBack(ctx context.Context, c *endpoint.Call, f func(context.Context, *endpoint.Call, error) (any, error), err error) (any, error) {
	reply, failed := f(ctx, c, err)
	if failed != nil {
		return nil, failed
	}
	if !fits(reply, c.Spec) {
		return nil, endpoint.Internal.Wrap(err, fmt.Sprintf("middleware.Fallback: the function replied with %T, want %s", reply, wanted(c.Spec))).
			WithOutcome(endpoint.OutcomeOf(err))
	}
	if c.Reply.Get("Cache-Control") == "" {
		c.Reply.Set("Cache-Control", "no-store")
	}
	return reply, nil
}

// fits reports whether a reply is one that an operation can give.
func fits(reply any, s *endpoint.Spec) bool {
	if s.Kind.StreamsOut() {
		return reply == nil
	}
	v := reflect.ValueOf(reply)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return false
	}
	return s.Response == nil || v.Type() == messageType(s.Response)
}

func wanted(s *endpoint.Spec) string {
	if s.Kind.StreamsOut() {
		return "nil, since the reply is a stream"
	}
	if s.Response == nil {
		return "a pointer"
	}
	return messageType(s.Response).String()
}
