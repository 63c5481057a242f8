package endpoint

import (
	"context"
	"io"
	"iter"
	"reflect"
	"sync"
)

// ServerStreamCaller gives a remote stream as a function. Each range over its iterator is a new call; leaving the loop
// cancels the call at the server. Client middleware runs around the consumer's loop.
func ServerStreamCaller[Req, Resp any](t Transport, subject string, opts ...Option) ServerStream[Req, Resp] {
	k := newCaller(t, subject, ServerStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return func(ctx context.Context, req Req) iter.Seq2[Resp, error] {
		return func(yield func(Resp, error) bool) {
			consume(ctx, k, box(req, k.spec.reqPtr), nil, yield)
		}
	}
}

// ClientStreamCaller sends an iterator of requests, which runs in a goroutine of its own and sees false at its next yield
// once the call is over. A nil one is invalid_argument, NotSent.
//
// An error that it yields ends the call. One of its own making, an [*Error], is what the call returns, MaybeExecuted and
// without a reason: those it has may be about another call. Of any other, and of what came out of another caller, the
// call is canceled, with it as the cause.
//
// The iterator's panic surfaces in the caller if it comes before the call is over. A later one, after yield returned false,
// is recovered and lost: nothing waits for the iterator any more. Which of the two it is can be a matter of luck.
func ClientStreamCaller[Req, Resp any](t Transport, subject string, opts ...Option) ClientStream[Req, Resp] {
	k := newCaller(t, subject, ClientStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return func(ctx context.Context, in iter.Seq2[Req, error]) (Resp, error) {
		reply, err := k.upload(ctx, newFeed(k, in))
		return result[Resp](k, reply, err)
	}
}

// BidiStreamCaller does both, see ServerStreamCaller and ClientStreamCaller.
func BidiStreamCaller[Req, Resp any](t Transport, subject string, opts ...Option) BidiStream[Req, Resp] {
	k := newCaller(t, subject, BidiStreamKind, reflect.TypeFor[Req](), reflect.TypeFor[Resp](), opts)
	return func(ctx context.Context, in iter.Seq2[Req, error]) iter.Seq2[Resp, error] {
		return func(yield func(Resp, error) bool) {
			consume(ctx, k, nil, newFeed(k, in), yield)
		}
	}
}

func (k *caller) upload(ctx context.Context, f *feed) (any, error) {
	c, ctx, err := k.start(ctx, nil, f)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	defer c.finish()
	reply, err := k.run(ctx, c)
	f.finish()
	return reply, err
}

// consume runs a whole call inside the consumer's range loop: yield is the sink.
func consume[Resp any](ctx context.Context, k *caller, msg any, f *feed, yield func(Resp, error) bool) {
	var zero Resp
	c, ctx, err := k.start(ctx, msg, f)
	if err != nil {
		yield(zero, asReceived(err))
		return
	}
	defer c.finish() // also when the loop body ends its goroutine
	if f != nil {
		defer f.stop()
	}
	s := sink{call: c}
	c.send = func(m any) error {
		v, ok := unbox[Resp](m, k.spec.respPtr)
		if !ok { // not yielded here: an error is the last thing that is
			return Internal.Errorf("an item is %T, want %v", m, messageType(k.spec.Response))
		}
		return s.put(func() bool { return yield(v, nil) })
	}
	_, err = k.run(ctx, c)
	if s.panicked {
		panic(s.panicValue)
	}
	if f != nil {
		f.finish()
	}
	if err != nil && !s.left {
		yield(zero, asReceived(err))
	}
}

// sink delivers items to the consumer's loop. A panic in the loop body belongs to the consumer: it is held back while
// the middleware unwinds, so that none swallows it, and goes on afterwards.
type sink struct {
	call       *Call
	left       bool
	panicked   bool
	panicValue any
}

func (s *sink) put(yield func() bool) (err error) {
	if s.left {
		return errLeft
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		s.left = true
		if p := recover(); p != nil { // nil: the loop body ends its goroutine, which nothing should hold up
			s.panicked, s.panicValue = true, p
			s.call.Cancel(errLeft)
			err = errLeft
		}
	}()
	more := yield()
	returned = true
	if !more {
		s.left = true
		s.call.Cancel(errLeft) // the transport tells the server
		return errLeft
	}
	return nil
}

// feed ranges over the caller's input in a goroutine of its own, never by iter.Pull: an input that blocks must not hold
// the call's deadline. The goroutine starts with the first Recv and ends with the input, or at its first yield after stop.
type feed struct {
	run   func(f *feed) bool // ranges over the input and puts; tells whether it came to the end
	items chan fed
	done  chan struct{}
	once  sync.Once
	ends  sync.Once

	mu       sync.Mutex
	panicked bool
	value    any
	broken   error // why the input ended before its end
}

type fed struct {
	m   any
	err error
}

// newFeed returns nil for a nil input.
func newFeed[Req any](k *caller, in iter.Seq2[Req, error]) *feed {
	if in == nil {
		return nil
	}
	return &feed{items: make(chan fed), done: make(chan struct{}), run: func(f *feed) bool {
		for v, err := range in {
			m := box(v, k.spec.reqPtr)
			if err == nil && noRequest(m) {
				err = InvalidArgument.Errorf("the input yielded a nil %v", k.spec.Request)
			}
			if !f.put(m, err) || err != nil {
				return false
			}
		}
		return true
	}}
}

func (f *feed) put(m any, err error) bool {
	if err != nil {
		err = inputFault(err)
	}
	select {
	case f.items <- fed{m, err}:
		return true
	case <-f.done:
		return false
	}
}

// inputFault is the error of a call whose input failed: the input's own words, if it has any. What an error says of another
// call (its outcome, its reason, all of one that came out of a caller) is not true of this one.
func inputFault(err error) *Error {
	e, ok := find(err)
	if !ok || e.remote || e.received {
		return Canceled.Wrap(err, "the input failed")
	}
	if err != error(e) { //nolint:errorlint // whether something wraps e is the question
		e = e.WithCause(err)
	}
	return e.WithOutcome(MaybeExecuted).WithReason("")
}

// start returns the Recv of the call.
func (f *feed) start(ctx context.Context) func() (any, error) {
	return func() (any, error) {
		f.once.Do(func() { go f.loop() })
		select {
		case it, ok := <-f.items:
			if !ok && ctx.Err() != nil { // an input that looks at the context has not come to its end
				return nil, ContextError(ctx)
			}
			if !ok {
				return nil, f.end()
			}
			return it.m, it.err
		case <-f.done:
			return nil, Canceled.New("the call is over")
		case <-ctx.Done():
			return nil, ContextError(ctx)
		}
	}
}

func (f *feed) loop() {
	defer close(f.items)
	broken := Canceled.New("the input ended its goroutine") // runtime.Goexit, if nothing better is known
	defer func() {
		p := recover()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.panicked, f.value = p != nil, p; p != nil {
			broken = Canceled.New("the input panicked")
		}
		if broken != nil {
			f.broken = broken
		}
	}()
	if f.run(f) {
		broken = nil
	} else {
		broken = Canceled.New("the call is over")
	}
}

func (f *feed) end() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	return io.EOF
}

func (f *feed) stop() { f.ends.Do(func() { close(f.done) }) }

// finish stops the input and lets its panic, if there was one, surface in the caller.
func (f *feed) finish() {
	f.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panicked {
		panic(f.value)
	}
}
