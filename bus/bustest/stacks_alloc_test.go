package bustest_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// parts are the default stacks, whole and in parts, as docs/middleware.md has them.
var parts = []struct {
	name string
	d    func() middleware.Defaults
}{
	{"none", func() middleware.Defaults { return middleware.Defaults{} }},
	{"log", func() middleware.Defaults { return middleware.Defaults{Log: atWarn()} }},
	{"metrics", func() middleware.Defaults { return middleware.Defaults{Metrics: metrics.New(prometheus.NewRegistry())} }},
	{"tracing", func() middleware.Defaults { return middleware.Defaults{Tracing: tracing.New(unsampled(), nil)} }},
	{"timeout", func() middleware.Defaults { return middleware.Defaults{Timeout: 5 * time.Second} }},
	{"retry", func() middleware.Defaults { return middleware.Defaults{Retry: &middleware.RetryPolicy{}} }},
	{"breaker", func() middleware.Defaults { return middleware.Defaults{Breaker: &middleware.BreakerPolicy{}} }},
	{"whole", whole},
}

func whole() middleware.Defaults {
	return middleware.Defaults{
		Log: atWarn(), Metrics: metrics.New(prometheus.NewRegistry()), Tracing: tracing.New(unsampled(), nil),
		Timeout: 5 * time.Second, Retry: &middleware.RetryPolicy{}, Breaker: &middleware.BreakerPolicy{},
	}
}

func atWarn() *slog.Logger {
	return slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})) //nolint:sloglint // a handler of life, at warn
}

func unsampled() *trace.TracerProvider {
	return trace.NewTracerProvider(trace.WithSampler(trace.NeverSample()))
}

// waits is a transport that asks a context for its deadline and what else ends it, as the bus does, and has the reply.
type waits struct{}

var sum any = &addResponse{Sum: 3}

func (waits) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(ctx context.Context, _ *endpoint.Call) (any, error) {
		endpoint.Wait(ctx)
		return sum, nil
	}
}

// stackCall makes calls through the stacks: at the caller's side with a transport that does no more than to look at the
// context, at the service's with a traceparent where a caller with the same stack sends one.
func stackCall(ctx context.Context, side endpoint.Side, came string, mws ...endpoint.Middleware) func() {
	if side == endpoint.ClientSide {
		call := endpoint.Caller[*addRequest, *addResponse](waits{}, "svc.add", endpoint.Idempotent(), endpoint.With(mws...))
		req := &addRequest{A: 1, B: 2}
		return func() { _, _ = call(ctx, req) }
	}
	spec := endpoint.New(add).Spec()
	h := endpoint.Chain(mws...)(func(context.Context, *endpoint.Call) (any, error) { return sum, nil })
	deadline, _ := ctx.Deadline()
	return func() {
		c := endpoint.NewCall(spec, "svc.add", side)
		c.SetTrace(came)
		c.SetReceived(deadline.Add(-time.Minute))
		c.SetNow(c.Received())
		_, _ = h(c.Begin(ctx, deadline), c)
		c.End()
	}
}

const came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

// TestStacksAllocs holds what the whole stacks allocate on a call that goes well and is not sampled, beyond the Call itself.
func TestStacksAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: allocations are counted without it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, tc := range []struct {
		side endpoint.Side
		want float64
	}{{endpoint.ClientSide, 6}, {endpoint.ServerSide, 5}} {
		t.Run(tc.side.String(), func(t *testing.T) {
			d := whole()
			call := stackCall(ctx, tc.side, came, middleware.Server(d), middleware.Client(d))
			assert.Equal(t, testing.AllocsPerRun(1000, call)-1, tc.want)
		})
	}
}

func BenchmarkStacks(b *testing.B) {
	for _, side := range []endpoint.Side{endpoint.ClientSide, endpoint.ServerSide} {
		run := func(name, came string, mws ...endpoint.Middleware) {
			b.Run(side.String()+"/"+name, func(b *testing.B) {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				defer cancel()
				call := stackCall(ctx, side, came, mws...)
				b.ReportAllocs()
				for b.Loop() {
					call()
				}
			})
		}
		run("bare", "")
		for _, p := range parts {
			d, with := p.d(), ""
			if d.Tracing != nil {
				with = came
			}
			run(p.name, with, middleware.Server(d), middleware.Client(d))
		}
	}
}
