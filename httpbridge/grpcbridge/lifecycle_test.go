package grpcbridge_test

import (
	"context"
	"io"
	"iter"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// held serves endpoints that say when they began, and wait until they are canceled; those of streams send one item before.
type held struct {
	began chan struct{}
	ended chan error
}

func newHeld(t testing.TB) (*held, *endpoint.Mux) {
	t.Helper()
	h := &held{began: make(chan struct{}, 8), ended: make(chan error, 8)}
	m := endpoint.NewMux(endpoint.MuxCodecs(protobuf.Binary))
	serve(t, m, "acme.Words.Upper", endpoint.New(func(ctx context.Context, r *text) (*text, error) { return r, h.wait(ctx) }))
	serve(t, m, "acme.Words.Letters", endpoint.NewServerStream(endpoint.Emit(func(ctx context.Context, r *text, send func(*text) error) error {
		_ = send(r)
		return h.wait(ctx)
	})))
	serve(t, m, "acme.Words.Join", endpoint.NewClientStream(func(ctx context.Context, in iter.Seq2[*text, error]) (*text, error) {
		for range in {
			break
		}
		return &text{}, h.wait(ctx)
	}))
	serve(t, m, "acme.Words.Each", endpoint.NewBidiStream(endpoint.Emit(
		func(ctx context.Context, in iter.Seq2[*text, error], send func(*number) error) error {
			_ = send(&number{})
			h.began <- struct{}{}
			for range in { // what it waits for most of the time
			}
			<-ctx.Done()
			h.ended <- ctx.Err()
			return ctx.Err()
		})))
	return h, m
}

func (h *held) wait(ctx context.Context) error {
	h.began <- struct{}{}
	<-ctx.Done()
	h.ended <- ctx.Err()
	return ctx.Err()
}

// calls are one of each kind; each returns when its call is over.
func calls(t testing.TB, s *site, opts ...connect.ClientOption) []func(context.Context) error {
	t.Helper()
	h := http2(t)
	opts = append(opts, connect.WithGRPC())
	x := wrapperspb.String("x")
	return []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := dial[text, text](s, "Upper", h, opts...).CallUnary(ctx, connect.NewRequest(x))
			return err
		},
		func(ctx context.Context) error {
			c, err := dial[text, text](s, "Letters", h, opts...).CallServerStream(ctx, connect.NewRequest(x))
			if err != nil {
				return err
			}
			defer c.Close()
			for c.Receive() {
			}
			return c.Err()
		},
		func(ctx context.Context) error {
			c := dial[text, text](s, "Join", h, opts...).CallClientStream(ctx)
			_ = c.Send(x)
			_, err := c.CloseAndReceive()
			return err
		},
		func(ctx context.Context) error {
			c := dial[text, number](s, "Each", h, opts...).CallBidiStream(ctx)
			defer c.CloseResponse()
			// The upload stays open; while it does, net/http's client looks at neither its context nor at what the server says.
			defer context.AfterFunc(ctx, func() { _ = c.CloseRequest() })()
			_ = c.Send(x)
			for {
				if _, err := c.Receive(); err != nil {
					return err
				}
			}
		},
	}
}

func TestClientLeaves(t *testing.T) {
	h, m := newHeld(t)
	s := start(t, m)
	for _, call := range calls(t, s) {
		ctx, leave := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- call(ctx) }()
		<-h.began
		leave()
		refused(t, <-over, connect.CodeCanceled)
		assert.ErrorIs(t, <-h.ended, context.Canceled)
	}
	assert.Eventually(t, func() bool { return len(s.log.all()) == 4 }, "each is logged")
	for _, r := range s.log.all() {
		assert.Contains(t, r, "DEBUG", "status=200", "code=canceled")
	}
}

func TestDrain(t *testing.T) {
	h, m := newHeld(t)
	for i := range 4 {
		s := start(t, m)
		call := calls(t, s)[i]
		over := make(chan error)
		go func() { over <- call(t.Context()) }()
		<-h.began
		hurry, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		assert.Contains(t, s.bridge.Drain(hurry).Error(), "1 calls still ran")
		cancel()
		refused(t, <-over, connect.CodeUnavailable, "shutting down")
		<-h.ended
		refused(t, call(t.Context()), connect.CodeUnavailable, "shutting down")
	}
}

func TestAtTheLimit(t *testing.T) {
	h, m := newHeld(t)
	s := start(t, m, httpbridge.WithLimits(httpbridge.Limits{Concurrent: 1}))
	all := calls(t, s)
	ctx, leave := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- all[3](ctx) }()
	<-h.began
	for _, call := range all {
		e := refused(t, call(t.Context()), connect.CodeResourceExhausted, "at its limit")
		assert.Equal(t, e.Meta().Get("Grpc-Retry-Pushback-Ms"), "1000")
	}
	leave()
	<-over
	<-h.ended
}

// A stream outlives what bounds a body and a reply; the deadline of its client ends it.
func TestStreamsTakeTheirTime(t *testing.T) {
	_, m := newHeld(t)
	const short = 20 * time.Millisecond
	s := start(t, m, httpbridge.WithTimeouts(httpbridge.Timeouts{Body: short, Write: short, Call: short, MaxCall: short}))
	for _, call := range calls(t, s)[1:] {
		ctx, cancel := context.WithTimeout(t.Context(), 10*short)
		begin := time.Now()
		refused(t, call(ctx), connect.CodeDeadlineExceeded)
		cancel()
		assert.True(t, time.Since(begin) > 9*short, time.Since(begin).String())
	}
}

// A message that does not come is waited for as long as the bridge waits for a body, and until it is drained.
func TestStalledMessage(t *testing.T) {
	stalled := func(s *site, method string) (status, message string) {
		body, stop := io.Pipe()
		defer stop.Close()
		go func() { _, _ = stop.Write([]byte("\x00\x00\x00\x00\x06\x0a")) }()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/"+method, body)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/grpc")
		resp, err := http2(t).Do(r)
		assert.NoError(t, err)
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	}
	s := start(t, newMux(t), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 20 * time.Millisecond}))
	for _, method := range []string{"Upper", "Letters", "Join", "Each"} {
		status, message := stalled(s, method)
		assert.Equal(t, status, "4", method)
		assert.Contains(t, message, "did not arrive in time")
	}
	assert.Contains(t, s.log.all()[0], "deadline_exceeded", "did not arrive in time")

	entered := make(chan struct{})
	s = start(t, newMux(t), httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
		close(entered)
		return r.Context(), nil
	}))
	over := make(chan string)
	go func() {
		status, message := stalled(s, "Upper")
		over <- status + " " + message
	}()
	<-entered
	now, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Contains(t, s.bridge.Drain(now).Error(), "1 calls still ran")
	assert.Equal(t, <-over, "14 the bridge is shutting down")
}
