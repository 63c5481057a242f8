package middleware

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"

	"postbus.example/endpoint"
)

// validator is what Validate looks for.
type validator interface{ Validate() error }

// Validate checks requests whose type has the method Validate() error, on the type or its pointer. What the method
// complains of is invalid_argument, and its text is for the peer: it says what is wrong with the message and MUST NOT say more
// than the peer may know. An [*endpoint.Error] keeps its code, message and details, a bare [endpoint.Code] is one without
// text. Only the message itself is asked: its method has to ask its parts. A method that panics is internal, reason panic.
//
// Validate acts on both sides. On the server's side a request that fails is not executed; on the client's side it is not
// sent. Of a stream of requests each item is checked when it is asked for: the first bad one is what the handler,
// or the sending transport, gets in place of it, and the error of the call unless the call fails otherwise. Replies are not checked.
//
// Messages without the method cost nothing and are not decoded here. Those with it are decoded before the handler would do
// that, so on the server's side Validate stands innermost, after everything that refuses without looking. For rules that are
// no methods see [ValidateWith].
func Validate() endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		var bound atomic.Pointer[checked]
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			b := bound.Load()
			if b == nil || b.spec != c.Spec {
				b = &checked{c.Spec, checksItself(c.Spec.Request)}
				bound.Store(b)
			}
			if !b.itself {
				return next(ctx, c)
			}
			return validated(ctx, c, next, askItself)
		}
	}
}

// checked is what is known of an operation since its first call.
type checked struct {
	spec   *endpoint.Spec
	itself bool
}

// checksItself tells whether the messages of a type, pointers in any case, have the method.
func checksItself(t reflect.Type) bool {
	if t == nil { // a Spec written by hand, whose messages may be anything
		return true
	}
	return messageType(t).Implements(reflect.TypeFor[validator]())
}

// messageType is what a message of a type is in a call: always a pointer.
func messageType(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t
	}
	return reflect.PointerTo(t)
}

func askItself(m any) error {
	if v, ok := m.(validator); ok {
		return v.Validate()
	}
	return nil
}

// ValidateWith checks every request with a function, such as that of a validator for protobuf rules or struct tags. It is
// given the message, a pointer, must not change it, and must be safe for concurrent use. All else is as with [Validate], but
// that each request is decoded. A nil function is a fault: each call is refused.
func ValidateWith(check func(m any) error) endpoint.Middleware {
	if check == nil {
		return broken("ValidateWith", errors.New("the function is nil"))
	}
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			return validated(ctx, c, next, check)
		}
	}
}

func validated(ctx context.Context, c *endpoint.Call, next endpoint.Handler, check func(any) error) (any, error) {
	if c.Spec.Kind.StreamsIn() {
		return validatedStream(ctx, c, next, check)
	}
	m, err := c.Message()
	if err != nil {
		return nil, err
	}
	if e := complaint(check, m); e != nil {
		return nil, e.WithOutcome(untouched(c))
	}
	return next(ctx, c)
}

// validatedStream checks items as they are received. Once one is bad there are no more.
func validatedStream(ctx context.Context, c *endpoint.Call, next endpoint.Handler, check func(any) error) (any, error) {
	var bad atomic.Pointer[endpoint.Error] // the goroutine that receives may be another one
	c.WrapRecv(func(recv func() (any, error)) func() (any, error) {
		return func() (any, error) {
			if e := bad.Load(); e != nil {
				return nil, e
			}
			m, err := recv()
			if err != nil {
				return nil, err
			}
			if e := complaint(check, m); e != nil {
				e = e.WithOutcome(endpoint.MaybeExecuted) // the stream is open
				bad.Store(e)
				return nil, e
			}
			return m, nil
		}
	})
	reply, err := next(ctx, c)
	if e := bad.Load(); e != nil && err == nil {
		return nil, e
	}
	return reply, err
}

// complaint is what a check says of a message, nil if it is good.
func complaint(check func(any) error, m any) (e *endpoint.Error) {
	defer func() {
		if p := recover(); p != nil {
			e = endpoint.Recovered(p)
		}
	}()
	err := check(m)
	if err == nil {
		return nil
	}
	if known, ok := authored(err); ok {
		return known
	}
	return endpoint.InvalidArgument.Wrap(err, err.Error())
}
