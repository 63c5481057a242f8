package endpoint

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"postbus.example/codec"
)

// Caller gives a remote operation as a plain function. It is safe for concurrent use. Faults of construction (a bad
// subject, an option that does not apply, a type the codec can't carry) are returned by each call: invalid_argument,
// NotSent. Every error of a call is an [*Error], unless a middleware made one of another type.
func Caller[Req, Resp any](t Transport, subject string, opts ...Option) Unary[Req, Resp] {
	k := newCaller(t, subject, UnaryKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return func(ctx context.Context, req Req) (Resp, error) {
		var reply any
		var err error
		if b, ok := any(req).([]byte); ok && k.raw {
			reply, err = k.unary(ctx, noBytes, b)
		} else {
			reply, err = k.unary(ctx, box(req, k.spec.reqPtr), nil)
		}
		return result[Resp](k, reply, err)
	}
}

// result gives the typed end of a call.
func result[Resp any](k *caller, reply any, err error) (v Resp, _ error) {
	if err != nil {
		return v, asReceived(err)
	}
	v, ok := unbox[Resp](reply, k.spec.respPtr)
	if !ok || k.spec.respPtr && isNil(reply) {
		return v, asReceived(Internal.Errorf("a middleware replied with %T, want %v", reply, messageType(k.spec.Response)))
	}
	return v, nil
}

// caller is the untyped part of a caller: everything that is computed once.
type caller struct {
	spec    *Spec
	subject string
	handler Handler
	codec   codec.Codec
	timeout time.Duration // for contexts without a deadline
	bare    bool          // there is no middleware
	raw     bool          // a request of bytes is sent as it is
	err     error         // faults of construction
}

func newCaller(t Transport, subject string, kind Kind, req, resp reflect.Type, opts []Option) *caller {
	return finishCaller(t, subject, build(ClientSide, kind, req, resp, opts))
}

func finishCaller(t Transport, subject string, s *settings) *caller {
	k := &caller{spec: s.spec, subject: subject, codec: s.spec.Codec}
	if err := ValidateSubject(subject); err != nil {
		s.errs = append(s.errs, err)
	}
	if t == nil || reflect.ValueOf(t).Kind() == reflect.Pointer && reflect.ValueOf(t).IsNil() {
		s.errs = append(s.errs, errors.New("the transport is nil"))
		return k.fail(s.errs)
	}
	s.spec.Service, s.spec.Name = ServiceName(subject), EndpointName(subject[strings.LastIndexByte(subject, '.')+1:])
	if m, ok := t.(interface{ Codec() codec.Codec }); ok && k.codec == nil {
		k.codec = m.Codec()
	}
	if k.codec == nil {
		k.codec = codec.JSON
	}
	if err := s.spec.checkTypes(k.codec); err != nil {
		s.fault(err)
	}
	if len(s.errs) > 0 {
		return k.fail(s.errs)
	}
	if m, ok := t.(interface{ DefaultTimeout() time.Duration }); ok && bounded(s.spec.Kind) {
		k.timeout = m.DefaultTimeout()
	}
	bare := t.Handler(subject, s.spec)
	if bare == nil {
		return k.fail([]error{errors.New("the transport has no handler")})
	}
	var outer Middleware
	if m, ok := t.(interface{ Middleware() Middleware }); ok {
		outer = m.Middleware()
	}
	k.bare = !some(s.mws) && outer == nil
	inner := k.transport(bare)
	h := Chain(s.mws...)(inner)
	if outer != nil {
		h = outer(guard(h, inner))
	}
	if h == nil {
		return k.fail([]error{errNilHandler})
	}
	k.raw = k.codec == codec.Raw
	k.handler = h
	return k
}

// bounded tells the kinds that the transport's default timeout is for: a stream has no total lifetime unless asked for.
func bounded(k Kind) bool { return k == UnaryKind || k == GatherKind }

func (k *caller) fail(errs []error) *caller {
	err := errors.Join(errs...)
	k.err = &Error{
		Code: InvalidArgument, Message: fmt.Sprintf("caller of %.80q: %v", k.subject, err), cause: err,
		outcome: NotSent, reason: ReasonConstruction,
	}
	return k
}

// transport is the innermost handler: it sees each attempt. Within middleware it is a guard as well, see there.
func (k *caller) transport(h Handler) Handler {
	if !k.bare {
		return guardOf(h, k, true)
	}
	return func(ctx context.Context, c *Call) (any, error) {
		k.attempt(c)
		reply, err := h(ctx, c)
		if err != nil {
			return nil, k.received(err)
		}
		return reply, nil
	}
}

// attempt is told of each one.
func (k *caller) attempt(c *Call) {
	if o := c.root.observer; o != nil {
		o.attempt()
	}
}

// received marks the error of an attempt, here, so that a middleware can't hide it in an error of its own.
func (k *caller) received(err error) error { return asReceived(k.spec.revive(err)) }

// start makes the call of one request, or of the input of one that streams in, and its context, or says why it can't be made.
func (k *caller) start(ctx context.Context, msg any, f *feed) (*Call, context.Context, error) {
	switch {
	case k.err != nil:
		return nil, nil, k.err
	case ctx == nil:
		return nil, nil, InvalidArgument.New("the context is nil").WithOutcome(NotSent)
	case k.spec.Kind.StreamsIn() && f == nil:
		return nil, nil, InvalidArgument.New("the input is a nil iterator").WithOutcome(NotSent)
	case !k.spec.Kind.StreamsIn() && noRequest(msg):
		return nil, nil, InvalidArgument.Errorf("the request is a nil %v", k.spec.Request).WithOutcome(NotSent)
	}
	now := time.Now()
	c := k.newCall()
	c.msg, c.codec, c.received = msg, k.codec, now
	c.SetNow(now)
	if fields, _ := ctx.Value(headerKey{}).([]field); len(fields) > 0 {
		c.Header.fields = append(c.Header.fields, fields...)
	}
	c.observer = observerOf(ctx, now)
	var deadline time.Time
	if k.spec.Timeout > 0 {
		deadline = now.Add(k.spec.Timeout)
	} else if _, ok := ctx.Deadline(); !ok && k.timeout > 0 {
		deadline = now.Add(k.timeout)
	}
	own := c.Begin(ctx, deadline)
	if err := c.own().errAt(now); err != nil {
		c.End()
		return nil, nil, contextFault(own, err).WithOutcome(NotSent)
	}
	if f != nil {
		c.recv = f.start(own)
	}
	return c, own, nil
}

// contextFault is the error of a context that ended, with its cause for errors.Is.
func contextFault(ctx context.Context, err error) *Error {
	code, msg := Canceled, "the caller gave up"
	if errors.Is(err, context.DeadlineExceeded) {
		code, msg = DeadlineExceeded, "the deadline passed"
	}
	return code.Wrap(context.Cause(ctx), msg)
}

// ContextError returns the error of a call whose context ended: canceled or deadline_exceeded, with context.Cause as its
// cause, MaybeExecuted until the transport knows better. It is for transports; a context that did not end counts as
// one whose deadline passed just now, since timers and clocks differ a little.
func ContextError(ctx context.Context) *Error {
	err := ctx.Err()
	if err == nil {
		err = context.DeadlineExceeded
	}
	e := contextFault(ctx, err)
	if e.cause == nil {
		e.cause = err
	}
	return e
}

func (k *caller) newCall() *Call {
	if k.bare && k.spec.Kind == UnaryKind {
		return BareCall(k.spec, k.subject, ClientSide)
	}
	return NewCall(k.spec, k.subject, ClientSide)
}

// unary makes a call of one request and one reply. A request of bytes, msg being noBytes, is boxed in the memory of the call.
//
// It does what run does itself: most calls wait below this, and each function on the way has its share of the stack.
func (k *caller) unary(ctx context.Context, msg any, b []byte) (reply any, err error) {
	c, ctx, err := k.start(ctx, msg, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, Recovered(p)
		}
		c.finish()
	}()
	if msg == noBytes {
		c.msg = c.box(b)
	}
	reply, err = k.handler(ctx, c)
	return c.sealed(k.handler, reply, err)
}

// noBytes is a request until the call is there that has it.
var noBytes any = new([]byte)

// run runs the chain. A panic in it is a middleware's, and ends as an error, not in the user's code.
func (k *caller) run(ctx context.Context, c *Call) (reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, Recovered(p)
		}
	}()
	reply, err = k.handler(ctx, c)
	return c.sealed(k.handler, reply, err)
}

// finish ends a client's call after its chain returned.
func (c *Call) finish() {
	if c.observer != nil {
		c.observer.done(c)
	}
	c.End()
}
