package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type (
	inSeq  = iter.Seq2[*addRequest, error]
	outSeq = iter.Seq2[*addResponse, error]
)

func serverStream(t *testing.T, f func(context.Context, *addRequest) outSeq, opts ...endpoint.Option) endpoint.ServerStream[*addRequest, *addResponse] {
	t.Helper()
	return endpoint.ServerStreamCaller[*addRequest, *addResponse](serve(t, endpoint.NewServerStream(f)), "svc.op", opts...)
}

func clientStream(t *testing.T, f func(context.Context, inSeq) (*addResponse, error), opts ...endpoint.Option) endpoint.ClientStream[*addRequest, *addResponse] {
	t.Helper()
	return endpoint.ClientStreamCaller[*addRequest, *addResponse](serve(t, endpoint.NewClientStream(f)), "svc.op", opts...)
}

func bidiStream(t *testing.T, f func(context.Context, inSeq) outSeq, opts ...endpoint.Option) endpoint.BidiStream[*addRequest, *addResponse] {
	t.Helper()
	return endpoint.BidiStreamCaller[*addRequest, *addResponse](serve(t, endpoint.NewBidiStream(f)), "svc.op", opts...)
}

func TestStreams(t *testing.T) {
	sums, err := collect(serverStream(t, count)(t.Context(), &addRequest{A: 3}))
	assert.NoError(t, err)
	assert.Equal(t, sums, []int{1, 2, 3})
	got, err := clientStream(t, total)(t.Context(), inputs(4))
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 10)
	sums, err = collect(bidiStream(t, echo)(t.Context(), inputs(3)))
	assert.NoError(t, err)
	assert.Equal(t, sums, []int{1, 2, 3})
}

func TestErrorIsYieldedOnceAndLast(t *testing.T) {
	rude := func(context.Context, *addRequest) outSeq { // goes on after its error, whatever yield says
		return func(yield func(*addResponse, error) bool) {
			_ = yield(&addResponse{Sum: 1}, nil) && yield(nil, endpoint.Aborted.New("x")) && yield(&addResponse{Sum: 2}, nil)
		}
	}
	n := 0
	var last error
	for _, err := range serverStream(t, rude)(t.Context(), &addRequest{}) {
		assert.NoError(t, last, "after an error nothing follows")
		n, last = n+1, err
	}
	assert.Equal(t, n, 2)
	asError(t, last, endpoint.Aborted, endpoint.Executed)

	for _, bad := range []outSeq{serverStream(t, count)(t.Context(), nil), bidiStream(t, echo)(t.Context(), nil)} {
		n = 0
		for v, err := range bad {
			n++
			assert.True(t, v == nil)
			assert.Equal(t, endpoint.CodeOf(err), endpoint.InvalidArgument)
		}
		assert.Equal(t, n, 1)
	}
}

func TestEachRangeIsACall(t *testing.T) {
	var calls atomic.Int32
	seq := serverStream(t, func(ctx context.Context, r *addRequest) outSeq {
		calls.Add(1)
		return count(ctx, r)
	})(t.Context(), &addRequest{A: 2})
	assert.Equal(t, calls.Load(), 0, "nothing is called before the range")
	for range 3 {
		sums, err := collect(seq)
		assert.NoError(t, err)
		assert.Equal(t, sums, []int{1, 2})
	}
	assert.Equal(t, calls.Load(), 3)
	twice := bidiStream(t, echo)(t.Context(), inputs(2))
	for range 2 {
		sums, err := collect(twice)
		assert.NoError(t, err)
		assert.Equal(t, sums, []int{1, 2})
	}
}

// endless yields until its context ends, and reports how it ended.
func endless(ended chan<- error) func(context.Context, *addRequest) outSeq {
	return func(ctx context.Context, _ *addRequest) outSeq {
		return func(yield func(*addResponse, error) bool) {
			for i := 0; ; i++ {
				if !yield(&addResponse{Sum: i}, nil) {
					<-ctx.Done()
					ended <- ctx.Err()
					return
				}
			}
		}
	}
}

func TestLeavingTheLoopCancelsAtTheServer(t *testing.T) {
	ended := make(chan error, 1)
	for v := range serverStream(t, endless(ended))(t.Context(), &addRequest{}) {
		if v.Sum == 5 {
			break
		}
	}
	assert.Equal(t, <-ended, context.Canceled)

	next, stop := iter.Pull2(serverStream(t, endless(ended))(t.Context(), &addRequest{}))
	v, err, ok := next()
	assert.True(t, ok && err == nil && v.Sum == 0)
	stop()
	assert.Equal(t, <-ended, context.Canceled)
}

// swallow recovers what it can, as a careless middleware does.
func swallow(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (_ any, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = endpoint.Internal.New("recovered")
			}
		}()
		return next(ctx, c)
	}
}

func TestPanicInTheLoopBodyIsTheConsumers(t *testing.T) {
	ended := make(chan error, 1)
	seq := serverStream(t, endless(ended), endpoint.With(swallow))(t.Context(), &addRequest{})
	func() {
		defer func() { assert.Equal(t, recover(), any("mine")) }()
		for range seq {
			panic("mine")
		}
		t.Error("the panic was swallowed")
	}()
	assert.Equal(t, <-ended, context.Canceled)
}

func TestGoexitInTheLoopBody(t *testing.T) {
	ended := make(chan error, 1)
	seq := serverStream(t, endless(ended), endpoint.With(swallow))(t.Context(), &addRequest{})
	gone := make(chan bool, 1)
	go func() {
		after := false
		defer func() { gone <- after }()
		for range seq {
			runtime.Goexit()
		}
		after = true
	}()
	assert.True(t, !<-gone)
	assert.Equal(t, <-ended, context.Canceled)
}

func TestBlockedInputDoesNotHoldTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		sawFalse := make(chan bool, 2)
		blocked := func(yield func(*addRequest, error) bool) {
			yield(&addRequest{A: 1}, nil)
			<-release
			sawFalse <- !yield(&addRequest{A: 2}, nil)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := clientStream(t, total)(ctx, blocked)
		assert.Equal(t, endpoint.CodeOf(err), endpoint.DeadlineExceeded)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Since(start), time.Second)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sums, err := collect(bidiStream(t, echo)(ctx, blocked))
		assert.Equal(t, sums, []int{1})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		close(release)
		for range 2 {
			assert.True(t, <-sawFalse, "the input sees false at its next yield")
		}
	})
}

// The handler wants one item only: the input ends at its next yield.
func TestInputEndsWithTheCall(t *testing.T) {
	first := func(_ context.Context, in inSeq) (*addResponse, error) {
		for r, err := range in {
			return &addResponse{Sum: r.A}, err
		}
		return nil, endpoint.OutOfRange.New("no input")
	}
	ended := make(chan bool, 1)
	got, err := clientStream(t, first)(t.Context(), func(yield func(*addRequest, error) bool) {
		for i := 1; yield(&addRequest{A: i}, nil); i++ {
		}
		ended <- true
	})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 1)
	assert.True(t, <-ended)

	_, err = clientStream(t, first)(t.Context(), inputs(0))
	asError(t, err, endpoint.OutOfRange, endpoint.Executed)
}

// spy consumes all input and tells how the stream ended: nil for its true end.
func spy(ends chan<- error) func(context.Context, inSeq) (*addResponse, error) {
	return func(_ context.Context, in inSeq) (*addResponse, error) {
		var end error
		for _, err := range in {
			end = err
		}
		ends <- end
		return &addResponse{}, nil
	}
}

// A stream that broke off must never look complete to the handler, however it broke.
func TestBrokenInput(t *testing.T) {
	after := func(f func(yield func(*addRequest, error) bool)) inSeq {
		return func(yield func(*addRequest, error) bool) {
			if yield(&addRequest{A: 1}, nil) {
				f(yield)
			}
		}
	}
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		in   inSeq
		code endpoint.Code
		is   error
	}{
		"an error":           {after(func(y func(*addRequest, error) bool) { y(nil, mine) }), endpoint.Canceled, mine},
		"an EOF in disguise": {after(func(y func(*addRequest, error) bool) { y(nil, fmt.Errorf("x: %w", io.EOF)) }), endpoint.Canceled, io.EOF},
		"EOF itself":         {after(func(y func(*addRequest, error) bool) { y(nil, io.EOF) }), endpoint.Canceled, io.EOF},
		"an *Error":          {after(func(y func(*addRequest, error) bool) { y(nil, endpoint.Aborted.New("x")) }), endpoint.Aborted, endpoint.Aborted},
		"a nil item":         {after(func(y func(*addRequest, error) bool) { y(nil, nil) }), endpoint.InvalidArgument, endpoint.InvalidArgument},
		"Goexit":             {after(func(func(*addRequest, error) bool) { runtime.Goexit() }), endpoint.Canceled, endpoint.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan error, 1)
			_, err := clientStream(t, spy(ends))(t.Context(), c.in)
			assert.Equal(t, endpoint.CodeOf(err), c.code)
			assert.ErrorIs(t, err, c.is)
			assert.Equal(t, endpoint.CodeOf(<-ends), endpoint.Canceled)
		})
	}
}

func TestCanceledInputNeverLooksComplete(t *testing.T) {
	for range 50 {
		ends := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		_, _ = clientStream(t, spy(ends))(ctx, func(yield func(*addRequest, error) bool) { // the handler's answer may be quicker
			yield(&addRequest{}, nil)
			cancel()
			for ctx.Err() == nil && yield(&addRequest{}, nil) {
			}
		})
		assert.Equal(t, endpoint.CodeOf(<-ends), endpoint.Canceled)
	}
}

func TestInputPanicSurfacesInTheCaller(t *testing.T) {
	boom := func(yield func(*addRequest, error) bool) {
		yield(&addRequest{A: 1}, nil)
		panic("mine")
	}
	stuck := make(chan bool)
	stubborn := func(_ context.Context, in inSeq) (*addResponse, error) { // does not end when it is told to
		for range in {
		}
		<-stuck
		return &addResponse{}, nil
	}
	for name, run := range map[string]func(){
		"client stream":      func() { _, _ = clientStream(t, total, endpoint.With(swallow))(t.Context(), boom) },
		"bidi stream":        func() { _, _ = collect(bidiStream(t, echo, endpoint.With(swallow))(t.Context(), boom)) },
		"a stubborn handler": func() { _, _ = clientStream(t, stubborn)(t.Context(), boom) },
	} {
		func() {
			defer func() { assert.Equal(t, recover(), any("mine"), name) }()
			run()
			t.Error(name + ": the panic was swallowed")
		}()
	}
	close(stuck)
}

func TestStreamHandlerPanics(t *testing.T) {
	_, err := collect(serverStream(t, func(context.Context, *addRequest) outSeq { panic("boom") })(t.Context(), &addRequest{}))
	assert.Equal(t, asError(t, err, endpoint.Internal, endpoint.Executed).Reason(), endpoint.ReasonPanic)
	sums, err := collect(serverStream(t, func(context.Context, *addRequest) outSeq {
		return func(yield func(*addResponse, error) bool) {
			yield(&addResponse{Sum: 1}, nil)
			panic("boom")
		}
	})(t.Context(), &addRequest{}))
	assert.Equal(t, sums, []int{1})
	asError(t, err, endpoint.Internal, endpoint.Executed)
	_, err = collect(serverStream(t, func(context.Context, *addRequest) outSeq { return nil })(t.Context(), &addRequest{}))
	assert.Contains(t, asError(t, err, endpoint.Internal, endpoint.Executed).Message, "nil iterator")
	_, err = collect(serverStream(t, func(context.Context, *addRequest) outSeq { runtime.Goexit(); return nil })(t.Context(), &addRequest{}))
	asError(t, err, endpoint.Internal, endpoint.Executed)
}

func TestEmit(t *testing.T) {
	left := make(chan error, 1)
	emit := endpoint.Emit(func(_ context.Context, r *addRequest, send func(*addResponse) error) error {
		for i := range r.A {
			if err := send(&addResponse{Sum: i}); err != nil {
				left <- send(&addResponse{})
				return err
			}
		}
		return endpoint.OutOfRange.New("that was all")
	})
	sums, err := collect(serverStream(t, emit)(t.Context(), &addRequest{A: 2}))
	assert.Equal(t, sums, []int{0, 1})
	asError(t, err, endpoint.OutOfRange, endpoint.Executed)
	for range emit(t.Context(), &addRequest{A: 2}) {
		break
	}
	assert.Equal(t, endpoint.CodeOf(<-left), endpoint.Canceled)
	assert.True(t, endpoint.NewServerStream(endpoint.Emit[*addRequest, *addResponse](nil)).Err() != nil)
}

func TestCommitted(t *testing.T) {
	var seen []bool
	look := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			before := c.Committed()
			r, err := next(ctx, c.Retry())
			seen = append(seen, before, c.Committed())
			return r, err
		}
	}
	opt := endpoint.With(look)
	_, _ = collect(serverStream(t, count, opt)(t.Context(), &addRequest{A: 1}))
	_, _ = collect(serverStream(t, count, opt)(t.Context(), &addRequest{A: 0, B: 1}))
	_, _ = clientStream(t, total, opt)(t.Context(), inputs(1))
	_, _ = clientStream(t, func(context.Context, inSeq) (*addResponse, error) { return nil, endpoint.Aborted }, opt)(t.Context(), inputs(1))
	assert.Equal(t, seen, []bool{false, true, false, false, false, true, false, false})
}

// A stream that failed before anything passed may be tried again, and loses no item.
func TestStreamRetried(t *testing.T) {
	n := 0
	retry := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			r, err := next(ctx, c)
			for err != nil && !c.Committed() {
				a := c.Retry()
				r, err = next(ctx, a)
				c.Adopt(a)
			}
			return r, err
		}
	}
	late := func(ctx context.Context, in inSeq) (*addResponse, error) {
		if n++; n < 3 {
			return nil, endpoint.Unavailable.New("not yet")
		}
		return total(ctx, in)
	}
	got, err := clientStream(t, late, endpoint.With(retry))(t.Context(), inputs(4))
	assert.NoError(t, err)
	assert.Equal(t, []int{got.Sum, n}, []int{10, 3})
}

func TestStreamMetadata(t *testing.T) {
	chat := func(ctx context.Context, r *addRequest) outSeq {
		return func(yield func(*addResponse, error) bool) {
			c := endpoint.FromContext(ctx)
			c.Reply.Set("Opened", c.Header.Get("Who"))
			yield(&addResponse{}, nil)
			c.Reply.Set("Opened", "too late")
			c.Trailer.Set("Closed", "yes")
		}
	}
	ctx, report := endpoint.Observe(endpoint.WithHeader(t.Context(), "who", "me", "odd"))
	_, err := collect(serverStream(t, chat)(ctx, &addRequest{}))
	assert.NoError(t, err)
	assert.Equal(t, report.Reply.Get("opened"), "me")
	assert.Equal(t, report.Trailer.Get("closed"), "yes")
}

func TestPayloadStreams(t *testing.T) {
	payloads := func(texts ...string) iter.Seq2[*codec.Payload, error] {
		return func(yield func(*codec.Payload, error) bool) {
			for _, s := range texts {
				if !yield(&codec.Payload{MediaType: "application/json", Data: []byte(s)}, nil) {
					return
				}
			}
		}
	}
	typed := serve(t, endpoint.NewBidiStream(echo))
	raw := endpoint.BidiStreamCaller[*codec.Payload, *codec.Payload](typed, "svc.op")
	proxy := serve(t, endpoint.NewBidiStream(raw)) // a proxy is a caller served again
	for _, m := range []*endpoint.Mux{typed, proxy} {
		var got []string
		for p, err := range endpoint.BidiStreamCaller[*codec.Payload, *codec.Payload](m, "svc.op")(t.Context(), payloads(`{"A":1}`, `{"B":5}`)) {
			assert.NoError(t, err)
			assert.Equal(t, p.MediaType, "application/json")
			got = append(got, string(p.Data))
		}
		assert.Equal(t, got, []string{`{"Sum":1}`, `{"Sum":5}`})
		sums, err := collect(endpoint.BidiStreamCaller[*addRequest, *addResponse](m, "svc.op")(t.Context(), inputs(2)))
		assert.NoError(t, err)
		assert.Equal(t, sums, []int{1, 2})
	}
	foreign := func(yield func(*codec.Payload, error) bool) {
		yield(&codec.Payload{MediaType: "text/plain", Data: []byte("x")}, nil)
	}
	_, err := endpoint.ClientStreamCaller[*codec.Payload, *codec.Payload](serve(t, endpoint.NewClientStream(total)), "svc.op")(t.Context(), foreign)
	assert.Equal(t, asError(t, err, endpoint.InvalidArgument, endpoint.Executed).Reason(), endpoint.ReasonMediaType)
}

func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, r *addRequest) outSeq {
			return func(yield func(*addResponse, error) bool) {
				for i := range 100 {
					select {
					case <-time.After(time.Duration(i) * time.Second):
					case <-ctx.Done():
						return
					}
					if !yield(&addResponse{Sum: i}, nil) {
						return
					}
				}
			}
		}
		for _, side := range []string{"client", "server"} {
			start := time.Now()
			var eps, cs []endpoint.Option
			if side == "client" {
				cs = append(cs, endpoint.IdleTimeout(3500*time.Millisecond))
			} else {
				eps = append(eps, endpoint.IdleTimeout(3500*time.Millisecond))
			}
			m := serve(t, endpoint.NewServerStream(slow, eps...))
			sums, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op", cs...)(t.Context(), &addRequest{}))
			assert.Equal(t, sums, []int{0, 1, 2, 3})
			e := asError(t, err, endpoint.DeadlineExceeded, endpoint.MaybeExecuted)
			assert.Equal(t, e.Reason(), endpoint.ReasonIdle)
			assert.Equal(t, time.Since(start), 9500*time.Millisecond)
		}
		inputsSlowly(t)
	})
}

// inputsSlowly shows that input counts as activity too.
func inputsSlowly(t *testing.T) {
	t.Helper()
	got, err := clientStream(t, total, endpoint.IdleTimeout(2*time.Second))(t.Context(), func(yield func(*addRequest, error) bool) {
		for range 5 {
			time.Sleep(1500 * time.Millisecond)
			if !yield(&addRequest{A: 1}, nil) {
				return
			}
		}
	})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 5)
}

// An input that looks at the context and returns has not come to its end, whoever notices first.
func TestInputThatSeesTheCancellation(t *testing.T) {
	tr := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		for {
			if _, err := c.Recv(); err != nil {
				if err == io.EOF { //nolint:errorlint // itself is the end of a stream
					t.Error("the stream looks complete")
				}
				return nil, err
			}
		}
	})
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := endpoint.ClientStreamCaller[*addRequest, *addResponse](tr, "a.b")(ctx, func(yield func(*addRequest, error) bool) {
			yield(&addRequest{}, nil)
			cancel()
		})
		assert.ErrorIs(t, err, context.Canceled)
	}
}

// The end of a request stream is io.EOF itself; an error that wraps it is an error.
func TestOnlyEOFItselfEndsTheInput(t *testing.T) {
	ends := make(chan error, 1)
	ep := endpoint.NewClientStream(spy(ends))
	c := endpoint.NewCall(ep.Spec(), "a.b", endpoint.ServerSide)
	c.SetBody(nil, "application/json", codec.JSON)
	c.SetStream(func() (any, error) { return nil, fmt.Errorf("cut off: %w", io.EOF) }, nil)
	_, err := ep.Handler()(c.Begin(t.Context(), time.Time{}), c)
	c.End()
	assert.NoError(t, err)
	assert.ErrorIs(t, <-ends, io.EOF)
}
