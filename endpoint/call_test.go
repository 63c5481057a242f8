package endpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// refuse is middleware that answers instead of the handler.
func refuse(err error) endpoint.Middleware {
	return func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) { return nil, err }
	}
}

// reply is middleware that lets the call pass and replaces what came of it.
func reply(m any) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			_, err := next(ctx, c)
			return m, err
		}
	}
}

func TestOutcomes(t *testing.T) {
	denied := endpoint.PermissionDenied.New("no").WithOutcome(endpoint.Executed) // what it claims does not count
	var nilReq *addRequest
	for name, c := range map[string]struct {
		ep      *endpoint.Endpoint
		req     *addRequest
		opts    []endpoint.Option
		code    endpoint.Code
		outcome endpoint.Outcome
	}{
		"the handler's error":             {ep: endpoint.New(failing(denied)), req: &addRequest{}, code: endpoint.PermissionDenied, outcome: endpoint.Executed},
		"the handler lies":                {ep: endpoint.New(failing(denied.WithOutcome(endpoint.NotExecuted))), req: &addRequest{}, code: endpoint.PermissionDenied, outcome: endpoint.Executed},
		"a foreign error":                 {ep: endpoint.New(failing(errors.New("secret"))), req: &addRequest{}, code: endpoint.Unknown, outcome: endpoint.Executed},
		"a context error":                 {ep: endpoint.New(failing(context.Canceled)), req: &addRequest{}, code: endpoint.Canceled, outcome: endpoint.Executed},
		"middleware refuses":              {ep: endpoint.New(add, refuse(denied)), req: &addRequest{}, code: endpoint.PermissionDenied, outcome: endpoint.NotExecuted},
		"middleware refuses from outside": {ep: endpoint.New(add).With(refuse(denied)), req: &addRequest{}, code: endpoint.PermissionDenied, outcome: endpoint.NotExecuted},
		"a nil request":                   {ep: endpoint.New(add), req: nilReq, code: endpoint.InvalidArgument, outcome: endpoint.NotSent},
		"another kind":                    {ep: endpoint.NewServerStream(count), req: &addRequest{}, code: endpoint.Unimplemented, outcome: endpoint.NotExecuted},
		"client middleware refuses":       {ep: endpoint.New(add), req: &addRequest{}, opts: []endpoint.Option{refuse(endpoint.Unavailable.New("").WithOutcome(endpoint.NotSent))}, code: endpoint.Unavailable, outcome: endpoint.NotSent},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := caller(serve(t, c.ep), c.opts...)(t.Context(), c.req)
			e := asError(t, err, c.code, c.outcome)
			assert.True(t, !strings.Contains(e.Error(), "secret"))
		})
	}
}

func TestContextThatEndedBefore(t *testing.T) {
	m := serve(t, endpoint.New(add))
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := caller(m)(ctx, &addRequest{})
	asError(t, err, endpoint.Canceled, endpoint.NotSent)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, why)

	late, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	_, err = caller(m)(late, &addRequest{})
	asError(t, err, endpoint.DeadlineExceeded, endpoint.NotSent)
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	_, err = caller(m)(nil, &addRequest{}) // must not panic
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
}

type marshalPanic struct{}

func (marshalPanic) MarshalJSON() ([]byte, error) { panic("boom") }

type unmarshalPanic struct{}

func (*unmarshalPanic) UnmarshalJSON([]byte) error { panic("boom") }

type marshalError struct{}

func (marshalError) MarshalJSON() ([]byte, error) { return nil, errors.New("secret") }

// call serves f and calls it once with its own types.
func call[Req, Resp any](t *testing.T, f func(context.Context, Req) (Resp, error), req Req, opts ...endpoint.Option) (Resp, error) {
	t.Helper()
	m := serve(t, endpoint.New(f, opts...))
	return endpoint.Caller[Req, Resp](m, "svc.op")(t.Context(), req)
}

func TestPanicsAreInternal(t *testing.T) {
	boom := func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) { panic("boom") }
	}
	after := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			_, _ = next(ctx, c)
			panic("boom")
		}
	}
	check := func(name string, err error, outcome endpoint.Outcome) {
		t.Helper()
		e := asError(t, err, endpoint.Internal, outcome)
		assert.Equal(t, e.Reason(), endpoint.ReasonPanic, name)
		assert.True(t, !strings.Contains(e.Message, "boom"), name)
	}
	_, err := call(t, func(context.Context, *addRequest) (*addResponse, error) { panic("boom") }, &addRequest{})
	check("handler", err, endpoint.Executed)
	_, err = call(t, func(context.Context, *addRequest) (*addResponse, error) { panic(fmt.Errorf("boom")) }, &addRequest{})
	check("handler, error", err, endpoint.Executed)
	_, err = call(t, add, &addRequest{}, endpoint.Middleware(boom))
	check("middleware before", err, endpoint.NotExecuted)
	_, err = call(t, add, &addRequest{}, endpoint.Middleware(after))
	check("middleware after", err, endpoint.Executed)
	_, err = call(t, func(context.Context, *addRequest) (*marshalPanic, error) { return &marshalPanic{}, nil }, &addRequest{})
	check("MarshalJSON of the reply", err, endpoint.Executed)
	_, err = call(t, func(context.Context, *marshalPanic) (*addResponse, error) { return &addResponse{}, nil }, &marshalPanic{})
	check("MarshalJSON of the request", err, endpoint.NotSent)
	_, err = call(t, func(context.Context, *unmarshalPanic) (*addResponse, error) { return &addResponse{}, nil }, &unmarshalPanic{})
	check("UnmarshalJSON of the request", err, endpoint.NotExecuted)
	_, err = call(t, func(context.Context, *addRequest) (*unmarshalPanic, error) { return &unmarshalPanic{}, nil }, &addRequest{})
	check("UnmarshalJSON of the reply", err, endpoint.Executed)
}

// Middleware sees the panic as an error with value and stack, before it crosses without either.
func TestPanicSeenByMiddleware(t *testing.T) {
	var seen *endpoint.PanicError
	look := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			r, err := next(ctx, c)
			seen, _ = errors.AsType[*endpoint.PanicError](err)
			return r, err
		}
	}
	_, err := call(t, func(context.Context, *addRequest) (*addResponse, error) { panic("boom") }, &addRequest{}, endpoint.Middleware(look))
	assert.Equal(t, seen.Value, "boom")
	assert.Contains(t, string(seen.Stack), "call_test.go")
	_, crossed := errors.AsType[*endpoint.PanicError](err)
	assert.True(t, !crossed)
}

func TestEncodeFailures(t *testing.T) {
	_, err := call(t, func(context.Context, *addRequest) (*marshalError, error) { return &marshalError{}, nil }, &addRequest{})
	e := asError(t, err, endpoint.Internal, endpoint.Executed)
	assert.Equal(t, e.Reason(), endpoint.ReasonEncode)
	assert.Equal(t, e.Message, "", "an encode failure crosses without text")
	_, err = call(t, func(context.Context, *marshalError) (*addResponse, error) { return nil, nil }, &marshalError{})
	e = asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
	assert.Contains(t, e.Error(), "the request *endpoint_test.marshalError can't be encoded", "secret")
}

func TestDecodeFailureNamesTheField(t *testing.T) {
	m := serve(t, endpoint.New(add))
	raw := endpoint.Caller[*codec.Payload, *codec.Payload](m, "svc.op")
	_, err := raw(t.Context(), &codec.Payload{Data: []byte(`{"A":"x"}`)})
	e := asError(t, err, endpoint.InvalidArgument, endpoint.NotExecuted)
	assert.Equal(t, e.Reason(), endpoint.ReasonDecode)
	assert.Contains(t, e.Message, "A", "offset")
	_, err = raw(t.Context(), &codec.Payload{MediaType: "application/xml", Data: []byte(`<a/>`)})
	e = asError(t, err, endpoint.InvalidArgument, endpoint.NotExecuted)
	assert.Equal(t, e.Reason(), endpoint.ReasonMediaType)
}

func TestNilReply(t *testing.T) {
	_, err := call(t, func(context.Context, *addRequest) (*addResponse, error) { return nil, nil }, &addRequest{})
	e := asError(t, err, endpoint.Internal, endpoint.Executed)
	assert.Contains(t, e.Message, "nil *endpoint_test.addResponse")

	_, err = caller(transportFunc(func(context.Context, *endpoint.Call) (any, error) { return nil, nil }))(t.Context(), &addRequest{})
	assert.Contains(t, asError(t, err, endpoint.Internal, endpoint.MaybeExecuted).Message, "*endpoint_test.addResponse")
	_, err = caller(transportFunc(func(context.Context, *endpoint.Call) (any, error) { return (*addResponse)(nil), nil }))(t.Context(), &addRequest{})
	asError(t, err, endpoint.Internal, endpoint.MaybeExecuted)
}

func TestReplyOfAnotherType(t *testing.T) {
	var none *addResponse
	for _, wrong := range []any{nil, none, addResponse{}, "text", &addRequest{}} {
		_, err := call(t, add, &addRequest{}, reply(wrong))
		e := asError(t, err, endpoint.Internal, endpoint.Executed)
		assert.Contains(t, e.Message, fmt.Sprintf("%T", wrong), "*endpoint_test.addResponse")

		_, err = caller(serve(t, endpoint.New(add)), reply(wrong))(t.Context(), &addRequest{})
		e = asError(t, err, endpoint.Internal, endpoint.MaybeExecuted)
		assert.Contains(t, e.Message, fmt.Sprintf("%T", wrong), "*endpoint_test.addResponse")
	}
	got, err := call(t, add, &addRequest{}, reply(&addResponse{Sum: 7}))
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 7)
}

func TestStreamItemOfAnotherType(t *testing.T) {
	send := func(m any) endpoint.Middleware {
		return func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				if err := c.Send(m); err != nil {
					return nil, err
				}
				return next(ctx, c)
			}
		}
	}
	for _, on := range []func(...endpoint.Middleware) endpoint.Middleware{endpoint.OnServer, endpoint.OnClient} {
		m := serve(t, endpoint.NewServerStream(count, on(send("text"))))
		sums, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op", on(send("text")))(t.Context(), &addRequest{A: 3}))
		assert.Equal(t, len(sums), 0)
		assert.Equal(t, endpoint.CodeOf(err), endpoint.Internal)
		assert.Contains(t, err.Error(), "string", "*endpoint_test.addResponse")
	}
	m := serve(t, endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) { yield(nil, nil) }
	}))
	_, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op")(t.Context(), &addRequest{}))
	assert.Contains(t, asError(t, err, endpoint.Internal, endpoint.Executed).Message, "nil *endpoint_test.addResponse")
}

func TestValuesAsMessages(t *testing.T) {
	got, err := call(t, func(_ context.Context, r addRequest) (addResponse, error) { return addResponse{Sum: r.A + r.B}, nil }, addRequest{A: 1, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 3)
	length, err := call(t, func(_ context.Context, s string) (int, error) { return len(s), nil }, "four")
	assert.NoError(t, err)
	assert.Equal(t, length, 4)
	m, err := call(t, func(_ context.Context, m map[string]int) (map[string]int, error) { return nil, nil }, map[string]int{"a": 1})
	assert.NoError(t, err)
	assert.Equal(t, len(m), 0)
	type ptr *addRequest
	p, err := call(t, func(_ context.Context, p ptr) (ptr, error) { return p, nil }, &addRequest{A: 5})
	assert.NoError(t, err)
	assert.Equal(t, p.A, 5)
}

func TestDefaultTimeout(t *testing.T) {
	deadline := func(m *endpoint.Mux, ctx context.Context, opts ...endpoint.Option) (left time.Duration) {
		look := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				if d, ok := ctx.Deadline(); ok {
					left = time.Until(d)
				}
				return next(ctx, c)
			}
		}
		_, err := caller(m, append(opts, endpoint.With(look))...)(ctx, &addRequest{})
		assert.NoError(t, err)
		return left
	}
	synctest.Test(t, func(t *testing.T) {
		m := serve(t, endpoint.New(add))
		short := serve(t, endpoint.New(add), endpoint.MuxTimeout(time.Second))
		none := serve(t, endpoint.New(add), endpoint.MuxTimeout(0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, deadline(m, t.Context()), 10*time.Second)
		assert.Equal(t, deadline(short, t.Context()), time.Second)
		assert.Equal(t, deadline(none, t.Context()), 0)
		assert.Equal(t, deadline(m, ctx), time.Minute, "the context's own wins over the default")
		assert.Equal(t, deadline(m, ctx, endpoint.Timeout(time.Hour)), time.Minute, "the smaller wins")
		assert.Equal(t, deadline(m, ctx, endpoint.Timeout(time.Hour), endpoint.Timeout(time.Second)), time.Second)
		assert.Equal(t, deadline(m, t.Context(), endpoint.Timeout(time.Hour)), time.Hour, "more than the default")
	})
}

func TestRetryAndAdopt(t *testing.T) {
	tr := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		c.Reply.Set("Attempt", fmt.Sprint(c.Attempt))
		c.SetInstance(fmt.Sprint("i", c.Attempt))
		if c.Attempt < 2 {
			return nil, endpoint.Unavailable.New("")
		}
		return c.SetReply([]byte(`{"Sum":5}`), "application/json", codec.NewSet(codec.JSON))
	})
	var encoded []string
	retry := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			c.Header.Set("Shared", "yes")
			encoded = append(encoded, string(c.Body()))
			r, err := next(ctx, c)
			for n := 1; err != nil; n++ {
				a := c.Retry()
				assert.Equal(t, a.Attempt, n)
				assert.Equal(t, a.Header.Get("Shared"), "yes")
				a.Header.Set("Shared", "no")
				assert.Equal(t, a.Reply.Len()+a.Trailer.Len(), 0)
				m, merr := a.Message()
				assert.NoError(t, merr)
				assert.True(t, m == any(request), "the message is shared")
				if r, err = next(ctx, a); err == nil {
					c.Adopt(a)
				}
			}
			assert.Equal(t, c.Header.Get("Shared"), "yes", "each attempt has its own header")
			assert.Equal(t, string(c.ReplyBody()), `{"Sum":5}`)
			assert.Equal(t, c.Instance(), "i2")
			return r, err
		}
	}
	ctx, report := endpoint.Observe(t.Context())
	got, err := caller(tr, endpoint.With(retry))(ctx, request)
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 5)
	assert.Equal(t, encoded, []string{`{"A":1,"B":2}`})
	assert.Equal(t, report.Attempts, 3)
	assert.Equal(t, report.Instance, "i2")
	assert.Equal(t, report.Reply.Get("attempt"), "2")
	assert.Equal(t, []int{report.RequestSize, report.ReplySize}, []int{13, 9})
}

var request = &addRequest{A: 1, B: 2}

// Attempts that run at once share one encoding; the loser may go on reading it after the call has ended.
func TestAttemptsAtOnce(t *testing.T) {
	m := serve(t, endpoint.New(add))
	var attempts sync.WaitGroup
	defer attempts.Wait() // losers outlive their call, and must not outlive the test: others count allocations
	hedge := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			type result struct {
				call  *endpoint.Call
				reply any
				err   error
			}
			results := make(chan result, 4)
			for range 4 {
				a := c.Retry()
				attempts.Go(func() {
					r, err := next(ctx, a)
					results <- result{a, r, err}
				})
			}
			first := <-results
			c.Adopt(first.call)
			return first.reply, first.err
		}
	}
	sum := caller(m, endpoint.With(hedge))
	for i := range 200 {
		got, err := sum(t.Context(), &addRequest{A: i, B: 1000})
		assert.NoError(t, err)
		assert.Equal(t, got.Sum, i+1000)
	}
}

// What a server's attempt ran, ran: the outcome holds for the whole call.
func TestServerRetryKeepsTheOutcome(t *testing.T) {
	again := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			_, err := next(ctx, c.Retry())
			return nil, err
		}
	}
	_, err := call(t, failing(endpoint.Aborted.New("x")), &addRequest{}, endpoint.With(again))
	asError(t, err, endpoint.Aborted, endpoint.Executed)
}

func TestServerAdopt(t *testing.T) {
	again := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if r, err := next(ctx, c); err == nil {
				return r, nil
			}
			a := c.Retry()
			r, err := next(ctx, a)
			c.Adopt(a)
			return r, err
		}
	}
	n := 0
	got, err := call(t, func(ctx context.Context, r *addRequest) (*addResponse, error) {
		n++
		assert.Equal(t, endpoint.FromContext(ctx).Attempt, n-1)
		if n == 1 {
			return nil, endpoint.Aborted.New("")
		}
		endpoint.FromContext(ctx).Reply.Set("try", "2")
		return add(ctx, r)
	}, &addRequest{A: 1}, endpoint.With(again))
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 1)
}

func TestLazyDecoding(t *testing.T) {
	var body string
	guard := func(next endpoint.Handler) endpoint.Handler {
		return func(_ context.Context, c *endpoint.Call) (any, error) {
			body = string(c.Body())
			return nil, endpoint.Unauthenticated.New("who are you?")
		}
	}
	_, err := call(t, func(context.Context, *unmarshalPanic) (*addResponse, error) { return nil, nil }, &unmarshalPanic{}, endpoint.With(guard))
	asError(t, err, endpoint.Unauthenticated, endpoint.NotExecuted)
	assert.Equal(t, body, "{}")
}

// A reply is encoded inside the chain, and again only if a middleware replaced it.
func TestReplyEncodedInsideTheChain(t *testing.T) {
	n := 0
	counting := countingCodec{codec.JSON, &n}
	var seen string
	look := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			r, err := next(ctx, c)
			seen = string(c.ReplyBody())
			return r, err
		}
	}
	m := endpoint.NewMux(endpoint.MuxCodecs(counting))
	assert.NoError(t, m.Serve("svc.op", endpoint.New(add, endpoint.With(look))))
	_, err := caller(m)(t.Context(), request)
	assert.NoError(t, err)
	assert.Equal(t, seen, `{"Sum":3}`)
	assert.Equal(t, n, 2, "one request, one reply")
}

type countingCodec struct {
	codec.Codec
	n *int
}

func (c countingCodec) Append(dst []byte, v any) ([]byte, error) {
	*c.n++
	return c.Codec.Append(dst, v)
}

func TestMaxReply(t *testing.T) {
	ep := endpoint.New(add)
	c := endpoint.NewCall(ep.Spec(), "svc.op", endpoint.ServerSide)
	c.SetBody([]byte(`{"A":1}`), "application/json", codec.JSON)
	c.SetMaxReply(3)
	_, err := ep.Handler()(c.Begin(t.Context(), time.Time{}), c)
	e := asError(t, err, endpoint.ResourceExhausted, endpoint.Executed)
	assert.Equal(t, e.Reason(), endpoint.ReasonReplyTooLarge)
	c.End()
}

func TestHandWrittenSpec(t *testing.T) {
	c := endpoint.NewCall(&endpoint.Spec{Name: "x"}, "a.b", endpoint.ServerSide)
	c.SetBody([]byte(`{"a":1}`), "application/json", codec.JSON)
	m, err := c.Message()
	assert.NoError(t, err)
	data, err := json.Marshal(m)
	assert.NoError(t, err)
	assert.Equal(t, string(data), `{"a":1}`)
	c.Cancel(nil) // before Begin: nothing to end, and no panic
	assert.Equal(t, endpoint.FromContext(t.Context()), nil)
}

func TestTrace(t *testing.T) {
	c := endpoint.NewCall(&endpoint.Spec{}, "a", endpoint.ClientSide)
	assert.Equal(t, c.Trace(), "")
	c.Header.Set("Traceparent", "00-a")
	assert.Equal(t, c.Trace(), "00-a")
	c.SetTrace("00-b")
	assert.Equal(t, c.Trace(), "00-b")
	assert.Equal(t, c.Retry().Trace(), "00-b")
}

// Many callers at once, large and small messages: a pooled buffer that is used after its call ended would show.
func TestPooledBuffers(t *testing.T) {
	m := serve(t, endpoint.New(func(_ context.Context, s string) (string, error) { return s + s, nil }))
	twice := endpoint.Caller[string, string](m, "svc.op")
	done := make(chan error, 8)
	for i := range 8 {
		go func() {
			var err error
			for j := range 100 {
				s := strings.Repeat(string(rune('a'+i)), 1+j*j*5)
				got, e := twice(t.Context(), s)
				if e != nil || got != s+s {
					err = fmt.Errorf("%d bytes: %w, %d bytes back", len(s), e, len(got))
				}
			}
			done <- err
		}()
	}
	for range 8 {
		assert.NoError(t, <-done)
	}
}

// The loser of a race may still send the request when the call is over: its bytes are not reused.
func TestBodyOutlivesTheCallOfALoser(t *testing.T) {
	loser, over := make(chan []byte, 1), make(chan bool)
	tr := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		if c.Attempt == 1 {
			loser <- c.Body()
			<-over
			return nil, endpoint.Canceled
		}
		return fixed, nil
	})
	hedge := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			a := c.Retry()
			go func() { _, _ = next(ctx, a) }()
			body := <-loser
			loser <- body
			return next(ctx, c)
		}
	}
	_, err := caller(tr, endpoint.With(hedge))(t.Context(), request)
	assert.NoError(t, err)
	m := serve(t, endpoint.New(add))
	for range 10 {
		_, err = caller(m)(t.Context(), &addRequest{A: 7, B: 7})
		assert.NoError(t, err)
	}
	assert.Equal(t, string(<-loser), `{"A":1,"B":2}`)
	close(over)
}

// TestBeside: an attempt beside a running one shares what attempts share, and nothing that the running one may write.
func TestBeside(t *testing.T) {
	s := endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return nil, nil }).Spec()
	c := endpoint.NewCall(s, "svc.x", endpoint.ClientSide)
	c.SetBody([]byte(`{}`), "application/json", codec.JSON)
	c.Header.Set("a", "before")
	header, trace := c.Header.Clone(), "trace"
	done := make(chan struct{})
	go func() { // the running attempt
		defer close(done)
		c.Header.Set("a", "after")
		c.SetTrace("span")
		c.SetInstance("i-1")
	}()
	second := c.Beside(header, trace)
	assert.Equal(t, second.Attempt, 1)
	assert.Equal(t, second.Header.Get("a"), "before")
	assert.Equal(t, second.Trace(), "trace")
	assert.Equal(t, second.Instance(), "")
	assert.True(t, &second.Body()[0] == &c.Body()[0], "one encoding")
	<-done
	assert.Equal(t, c.Retry().Attempt, 2)
}
