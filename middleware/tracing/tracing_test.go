package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

func TestBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := record()
		m := endpoint.NewMux()
		m.Use(tracing.New(tp, nil))
		serve(t, m, "math.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			time.Sleep(time.Second / 2)
			return add(ctx, r)
		}, endpoint.Concurrency(1)))
		sum := caller(m, "math.add")
		var g sync.WaitGroup
		g.Go(func() { _, _ = sum(t.Context(), &addRequest{}) })
		synctest.Wait()
		_, err := sum(t.Context(), &addRequest{})
		g.Wait()
		assert.NoError(t, err)

		spans := tp.take()
		assert.Equal(t, len(spans), 4)
		server := spans[3] // of the call that waited
		client := spans[slices.IndexFunc(spans, func(s tracetest.SpanStub) bool { return s.SpanContext.SpanID() == server.Parent.SpanID() })]
		assert.Equal(t, client.SpanKind, trace.SpanKindClient)
		assert.Equal(t, server.SpanKind, trace.SpanKindServer)
		assert.True(t, server.Parent.IsRemote(), "it came over a wire")
		assert.True(t, !client.Parent.IsValid(), "a root")
		id := attrs(client)["postbus.instance"]
		assert.True(t, id != "", "an instance")
		assert.Equal(t, attrs(client), map[string]any{
			"rpc.system.name": "postbus", "rpc.method": "math/add", "rpc.response.status_code": "ok", "postbus.instance": id,
		})
		assert.Equal(t, attrs(server), map[string]any{
			"rpc.system.name": "postbus", "rpc.method": "math/add", "rpc.response.status_code": "ok", "postbus.instance": id,
			"postbus.queue.wait": .5,
		})
		for _, s := range []tracetest.SpanStub{client, server} {
			assert.Equal(t, s.Name, "math/add")
			assert.Equal(t, s.Status.Code, codes.Unset)
			assert.Equal(t, len(s.Events), 0)
			assert.Equal(t, s.InstrumentationScope.Name, "postbus.example/middleware/tracing")
			assert.Equal(t, s.InstrumentationScope.SchemaURL, semconv.SchemaURL)
		}
		assert.Equal(t, server.EndTime.Sub(server.StartTime), time.Second/2)
		assert.Equal(t, client.EndTime.Sub(client.StartTime), time.Second)
	})
}

// TestConventions holds our constants against OpenTelemetry's.
func TestConventions(t *testing.T) {
	tp := record()
	m := endpoint.NewMux()
	m.Use(tracing.New(tp, nil))
	serve(t, m, "svc.add", endpoint.New(failing(endpoint.Internal)))
	_, _ = caller(m, "svc.add")(t.Context(), &addRequest{})
	for _, s := range tp.take() {
		assert.Equal(t, attr(s, semconv.RPCSystemNameKey).AsString(), "postbus")
		assert.Equal(t, attr(s, semconv.RPCMethodKey).AsString(), "svc/add")
		assert.Equal(t, attr(s, semconv.RPCResponseStatusCodeKey).AsString(), "internal")
		assert.Equal(t, attr(s, semconv.ErrorTypeKey).AsString(), "internal")
	}
}

func failing(err error) adder {
	return func(context.Context, *addRequest) (*addResponse, error) { return nil, err }
}

func TestFailures(t *testing.T) {
	m := endpoint.NewMux()
	tp := record()
	m.Use(tracing.New(tp, nil))
	upstream := caller(endpoint.NewMux(), "nobody.here")
	for i, tc := range []struct {
		name         string
		handler      adder
		code, reason string
		fault        bool // the server's
	}{
		{"canceled", failing(context.Canceled), "canceled", "", false},
		{"unknown", failing(errors.New("x")), "unknown", "", true},
		{"invalid argument", failing(endpoint.InvalidArgument.New("x")), "invalid_argument", "", false},
		{"deadline", failing(context.DeadlineExceeded), "deadline_exceeded", "", true},
		{"not found", failing(endpoint.NotFound), "not_found", "", false},
		{"already exists", failing(endpoint.AlreadyExists), "already_exists", "", false},
		{"permission denied", failing(endpoint.PermissionDenied), "permission_denied", "", false},
		{"exhausted", failing(endpoint.ResourceExhausted.New("x").WithReason("quota")), "resource_exhausted", "quota", false},
		{"failed precondition", failing(endpoint.FailedPrecondition), "failed_precondition", "", false},
		{"aborted", failing(endpoint.Aborted), "aborted", "", false},
		{"out of range", failing(endpoint.OutOfRange), "out_of_range", "", false},
		{"unimplemented", failing(endpoint.Unimplemented), "unimplemented", "", true},
		{"internal", failing(endpoint.Internal), "internal", "", true},
		{"unavailable", failing(endpoint.Unavailable), "unavailable", "", true},
		{"data loss", failing(endpoint.DataLoss), "data_loss", "", true},
		{"unauthenticated", failing(endpoint.Unauthenticated), "unauthenticated", "", false},
		{"code ok", failing(endpoint.OK), "unknown", "", true},
		{"no code", failing(endpoint.Code(99)), "unknown", "", true},
		{"panic", func(context.Context, *addRequest) (*addResponse, error) { panic("x") }, "internal", "panic", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			subject := fmt.Sprintf("svc.n%d", i)
			serve(t, m, subject, endpoint.New(tc.handler))
			_, err := caller(m, subject)(t.Context(), &addRequest{})
			assert.Equal(t, endpoint.CodeOf(err).String(), tc.code)
			spans := tp.take()
			assert.Equal(t, len(spans), 2)
			for _, s := range spans {
				assert.Equal(t, attr(s, "rpc.response.status_code").AsString(), tc.code)
				assert.Equal(t, attr(s, "postbus.outcome").AsString(), "executed")
				assert.Equal(t, attr(s, "postbus.reason").AsString(), tc.reason)
				want, status := "", codes.Unset
				if tc.fault || s.SpanKind == trace.SpanKindClient {
					want, status = tc.code, codes.Error
				}
				assert.Equal(t, attr(s, "error.type").AsString(), want)
				assert.Equal(t, s.Status.Code, status)
				assert.Equal(t, s.Status.Description, "", "no words")
			}
		})
	}
	t.Run("of an upstream", func(t *testing.T) {
		serve(t, m, "svc.up", endpoint.New(upstream))
		_, _ = caller(m, "svc.up")(t.Context(), &addRequest{})
		assert.Equal(t, attr(tp.take()[1], "rpc.response.status_code").AsString(), "internal", "what the peer is told")
	})
	t.Run("never sent", func(t *testing.T) {
		for _, err := range []error{endpoint.OK, endpoint.Code(99)} {
			_, _ = caller(transport(func(context.Context, *endpoint.Call) (any, error) { return nil, err }), "a.b", tracing.New(tp, nil))(t.Context(), &addRequest{})
			assert.Equal(t, attr(tp.take()[0], "rpc.response.status_code").AsString(), "unknown")
		}
		_, _ = caller(m, "nobody.here")(t.Context(), &addRequest{})
		s := tp.take()[0]
		assert.Equal(t, attr(s, "postbus.outcome").AsString(), "not_executed")
		assert.Equal(t, attr(s, "postbus.reason").AsString(), "no_responders")
		assert.Equal(t, attr(s, "postbus.instance").AsString(), "")
	})
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ service, name, want string }{
		{"math", "add", "math/add"}, {"", "add", "add"}, {"math", "", "_OTHER"}, {"", "", "_OTHER"},
	} {
		tp := record()
		c := endpoint.NewCall(&endpoint.Spec{Service: tc.service, Name: tc.name}, "forged.by.the.wire", endpoint.ServerSide)
		_, err := tracing.New(tp, nil)(ok)(t.Context(), c)
		assert.NoError(t, err)
		s := tp.take()[0]
		assert.Equal(t, s.Name, tc.want)
		assert.Equal(t, attr(s, "rpc.method").AsString(), tc.want)
		_, waited := attrs(s)["postbus.queue.wait"]
		assert.True(t, !waited, "nobody said when it arrived")
	}
	// One handler for several operations, as a transport without callers may have.
	tp := record()
	h := tracing.New(tp, nil)(ok)
	for _, name := range []string{"a", "b", "a"} {
		_, _ = h(t.Context(), endpoint.NewCall(&endpoint.Spec{Service: "svc", Name: name}, "svc.x", endpoint.ServerSide))
	}
	assert.Equal(t, tree(tp.take()), "server svc/a\nserver svc/b\nserver svc/a\n")
}

func TestPanicsGoOn(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		tp := record()
		h := tracing.New(tp, nil)(func(context.Context, *endpoint.Call) (any, error) { panic("secret") })
		func() {
			defer func() { assert.Equal(t, recover(), any("secret")) }()
			_, _ = h(t.Context(), newCall(side))
		}()
		s := tp.take()[0]
		assert.Equal(t, attr(s, "error.type").AsString(), "internal", side.String())
		assert.Equal(t, attr(s, "postbus.reason").AsString(), "panic")
		assert.Equal(t, s.Status.Code, codes.Error)
		assert.Equal(t, len(s.Events), 0)
	}
	tp := record()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = tracing.New(tp, nil)(func(context.Context, *endpoint.Call) (any, error) {
			runtime.Goexit()
			return nil, nil
		})(t.Context(), newCall(endpoint.ServerSide))
	}()
	<-done
	assert.Equal(t, tree(tp.take()), "server svc/add internal\n")
}

func TestStreams(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	m := endpoint.NewMux()
	m.Use(mw)
	count := func(_ context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) {
			for i := range r.A {
				if !yield(&addResponse{Sum: i}, nil) {
					return
				}
			}
		}
	}
	serve(t, m, "svc.count", endpoint.NewServerStream(count))
	serve(t, m, "svc.total", endpoint.NewClientStream(func(_ context.Context, in iter.Seq2[*addRequest, error]) (*addResponse, error) {
		sum := 0
		for r, err := range in {
			if err != nil {
				return nil, err
			}
			sum += r.A
		}
		return &addResponse{Sum: sum}, nil
	}))
	serve(t, m, "svc.echo", endpoint.NewBidiStream(func(_ context.Context, in iter.Seq2[*addRequest, error]) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) {
			for r, err := range in {
				if err != nil || !yield(&addResponse{Sum: r.A}, nil) {
					return
				}
			}
			yield(nil, endpoint.DataLoss.New("x"))
		}
	}))
	input := func(yield func(*addRequest, error) bool) {
		for i := range 3 {
			if !yield(&addRequest{A: i}, nil) {
				return
			}
		}
	}

	for r, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count")(t.Context(), &addRequest{A: 3}) {
		assert.NoError(t, err)
		if r.Sum < 2 {
			assert.Equal(t, len(tp.spans.GetSpans()), 0, "it ends when the stream does")
		}
	}
	assert.Equal(t, tree(tp.take()), "client svc/count\n  server svc/count\n")

	for range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count")(t.Context(), &addRequest{A: 3}) {
		break
	}
	assert.Eventually(t, func() bool { return len(tp.spans.GetSpans()) == 2 }, "the server learns of it")
	assert.Contains(t, tree(tp.take()), "client svc/count canceled\n  server svc/count")

	r, err := endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "svc.total")(t.Context(), input)
	assert.NoError(t, err)
	assert.Equal(t, r.Sum, 3)
	assert.Equal(t, tree(tp.take()), "client svc/total\n  server svc/total\n")

	var last error
	for _, last = range endpoint.BidiStreamCaller[*addRequest, *addResponse](m, "svc.echo")(t.Context(), input) {
		continue
	}
	assert.ErrorIs(t, last, endpoint.DataLoss)
	assert.Equal(t, tree(tp.take()), "client svc/echo data_loss\n  server svc/echo data_loss\n")

	for range endpoint.Gather[*addRequest, *addResponse](m, "svc.one")(t.Context(), &addRequest{}) {
		continue
	}
	assert.Equal(t, len(tp.take()), 1, "a gather is one call")
}

// TestIndependent runs two buses with two providers in one process, and two values around one call.
func TestIndependent(t *testing.T) {
	one, two := record(), record()
	a, b := endpoint.NewMux(), endpoint.NewMux()
	a.Use(tracing.New(one, nil))
	b.Use(tracing.New(two, nil))
	serve(t, b, "b.add", endpoint.New(add))
	serve(t, a, "a.add", endpoint.New(caller(b, "b.add")))
	_, err := caller(a, "a.add")(t.Context(), &addRequest{})
	assert.NoError(t, err)
	first, second := one.take(), two.take()
	assert.Equal(t, tree(first), "client a/add\n  server a/add\n")
	assert.Equal(t, tree(second), "client b/add\n  server b/add\n")
	assert.Equal(t, second[0].Parent.SpanID(), first[1].SpanContext.SpanID(), "one trace over both")

	_, err = caller(transport(ok), "svc.add", tracing.New(one, nil), tracing.New(two, nil), again(2))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, tree(one.take()), "client svc/add\n")
	assert.Equal(t, tree(two.take()), "client svc/add\n", "the other's call is none of mine")
}

const canary = "c4n4ry"

// TestSecrets sends a canary in all that is nobody's business and looks for it in all that is exported.
func TestSecrets(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	m := endpoint.NewMux()
	m.Use(mw)
	type text struct{ Text string }
	cause := fmt.Errorf("%s: %w", canary, io.ErrUnexpectedEOF)
	for i, err := range []error{
		nil, cause, endpoint.Internal.Wrap(cause, canary), endpoint.NotFound.New(canary), endpoint.Unavailable.New(canary).With(&text{canary}),
	} {
		subject := fmt.Sprintf("svc.n%d", i)
		serve(t, m, subject, endpoint.New(func(ctx context.Context, r *text) (*text, error) {
			assert.Equal(t, r.Text, canary)
			c := endpoint.FromContext(ctx)
			assert.Equal(t, c.Header.Get("Authorization"), canary)
			c.Reply.Set("X-Reply", canary)
			return r, err
		}))
		ctx := endpoint.WithHeader(t.Context(), "Authorization", canary, "X-"+canary, "1", "baggage", "user="+canary)
		_, _ = endpoint.Caller[*text, *text](m, subject, again(2), mw)(ctx, &text{canary})
	}
	serve(t, m, "svc.panic", endpoint.New(func(context.Context, *text) (*text, error) { panic(canary) }))
	_, _ = endpoint.Caller[*text, *text](m, "svc.panic")(t.Context(), &text{canary})
	spans := tp.take()
	assert.True(t, len(spans) >= 12, "there is something to look at")
	assert.True(t, !strings.Contains(fmt.Sprintf("%+v", spans), canary), "the canary stays in")
}
