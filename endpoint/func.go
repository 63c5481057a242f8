package endpoint

import (
	"context"
	"io"
	"iter"
	"reflect"

	"postbus.example/codec"
)

// The four kinds of RPC, as functions. A handler and a caller have the same type, so that a caller can be decorated,
// faked, or served again. A stream yields an error at most once, and last.
type (
	// Unary is one request and one reply.
	Unary[Req, Resp any] func(context.Context, Req) (Resp, error)
	// ServerStream is one request and many replies.
	ServerStream[Req, Resp any] func(context.Context, Req) iter.Seq2[Resp, error]
	// ClientStream is many requests and one reply.
	ClientStream[Req, Resp any] func(context.Context, iter.Seq2[Req, error]) (Resp, error)
	// BidiStream is many requests and many replies.
	BidiStream[Req, Resp any] func(context.Context, iter.Seq2[Req, error]) iter.Seq2[Resp, error]
)

// New makes an endpoint of a function; the types are inferred. Messages are pointers to structs by convention, values
// work too. A nil reply without an error is internal.
func New[Req, Resp any](f func(context.Context, Req) (Resp, error), opts ...Option) *Endpoint {
	s := build(ServerSide, UnaryKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return newEndpoint(s, f == nil, func(ctx context.Context, c *Call) (any, error) {
		m, err := c.request()
		if err != nil {
			return nil, err
		}
		reply, err := runUnary(ctx, c, f, m)
		if err != nil {
			return nil, err
		}
		return c.answer(reply)
	})
}

func runUnary[Req, Resp any](ctx context.Context, c *Call, f func(context.Context, Req) (Resp, error), m any) (reply any, err error) {
	req, ok := unbox[Req](m, c.Spec.reqPtr)
	if !ok {
		return nil, foreignRequest(c, m)
	}
	ctx = c.enter(ctx)
	defer c.leave(&err)
	resp, err := f(ctx, req)
	if err != nil {
		return nil, c.Spec.author(err)
	}
	if b, ok := any(resp).([]byte); ok && c.codec == codec.Raw {
		return c.box(b), nil
	}
	return box(resp, c.Spec.respPtr), nil
}

// NewServerStream makes an endpoint of a function that answers with an iterator.
func NewServerStream[Req, Resp any](f func(context.Context, Req) iter.Seq2[Resp, error], opts ...Option) *Endpoint {
	s := build(ServerSide, ServerStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return newEndpoint(s, f == nil, func(ctx context.Context, c *Call) (_ any, err error) {
		m, err := c.Message()
		if err != nil {
			return nil, err
		}
		req, ok := unbox[Req](m, c.Spec.reqPtr)
		if !ok {
			return nil, foreignRequest(c, m)
		}
		ctx = c.enter(ctx)
		defer c.leave(&err)
		return nil, pump(ctx, c, f(ctx, req))
	})
}

// NewClientStream makes an endpoint of a function that consumes an iterator.
func NewClientStream[Req, Resp any](f func(context.Context, iter.Seq2[Req, error]) (Resp, error), opts ...Option) *Endpoint {
	s := build(ServerSide, ClientStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return newEndpoint(s, f == nil, func(ctx context.Context, c *Call) (any, error) {
		reply, err := runClientStream(ctx, c, f)
		if err != nil {
			return nil, err
		}
		return c.answer(reply)
	})
}

func runClientStream[Req, Resp any](ctx context.Context, c *Call, f func(context.Context, iter.Seq2[Req, error]) (Resp, error)) (reply any, err error) {
	ctx = c.enter(ctx)
	defer c.leave(&err)
	resp, err := f(ctx, inbound[Req](c))
	if err != nil {
		return nil, c.Spec.author(err)
	}
	if err := broken(ctx); err != nil {
		return nil, err
	}
	return box(resp, c.Spec.respPtr), nil
}

// NewBidiStream makes an endpoint of an iterator-to-iterator function.
func NewBidiStream[Req, Resp any](f func(context.Context, iter.Seq2[Req, error]) iter.Seq2[Resp, error], opts ...Option) *Endpoint {
	s := build(ServerSide, BidiStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return newEndpoint(s, f == nil, func(ctx context.Context, c *Call) (_ any, err error) {
		ctx = c.enter(ctx)
		defer c.leave(&err)
		return nil, pump(ctx, c, f(ctx, inbound[Req](c)))
	})
}

// Emit turns a function that sends into one that yields. send returns an error when the consumer has left; f should then
// return. A nil f is a fault of the endpoint made of it.
func Emit[Req, Resp any](f func(ctx context.Context, r Req, send func(Resp) error) error) ServerStream[Req, Resp] {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, r Req) iter.Seq2[Resp, error] {
		return func(yield func(Resp, error) bool) {
			left := false
			err := f(ctx, r, func(v Resp) error {
				if left = left || !yield(v, nil); left {
					return errLeft
				}
				return nil
			})
			if err != nil && !left {
				var zero Resp
				yield(zero, err)
			}
		}
	}
}

var errLeft = Canceled.New("the consumer has left the stream")

func foreignRequest(c *Call, m any) error {
	return Internal.Errorf("the request is %T, want %v", m, messageType(c.Spec.Request)).WithOutcome(NotExecuted)
}

// broken is why a stream broke off, nil if it did not. Its function may make of that what it likes: it is no success, for those
// around it neither.
func broken(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return ContextError(ctx).WithOutcome(Executed)
}

// pump sends what an iterator yields.
func pump[T any](ctx context.Context, c *Call, seq iter.Seq2[T, error]) error {
	if seq == nil {
		return Internal.New("the handler returned a nil iterator").WithOutcome(Executed)
	}
	for v, err := range seq {
		if err != nil {
			return c.Spec.author(err)
		}
		m := box(v, c.Spec.respPtr)
		if isNil(m) {
			return Internal.Errorf("the handler yielded a nil %v without an error", c.Spec.Response).WithOutcome(Executed)
		}
		if err := c.Send(m); err != nil {
			return c.Spec.author(err)
		}
	}
	return broken(ctx)
}

// inbound ranges over the request stream; a failure of the peer or the transport is yielded last.
func inbound[T any](c *Call) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			m, err := c.Recv()
			if err == io.EOF { //nolint:errorlint // itself: an input that failed with a wrapped EOF has not come to its end
				return
			}
			v, ok := unbox[T](m, c.Spec.reqPtr)
			if err == nil && !ok {
				err = foreignRequest(c, m)
			}
			if err != nil {
				yield(v, err)
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}
