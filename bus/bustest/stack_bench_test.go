package bustest_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// whole is everything that the stacks have of what costs something on each call: metrics, traces that are not sampled, a log
// at warn, deadlines, retries, a breaker.
func whole() middleware.Defaults {
	provider := trace.NewTracerProvider(trace.WithSampler(trace.NeverSample()))
	return middleware.Defaults{
		Log:     slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Metrics: metrics.New(prometheus.NewRegistry()), Tracing: tracing.New(provider, nil),
		Timeout: 10 * time.Second, Retry: &middleware.RetryPolicy{}, Breaker: &middleware.BreakerPolicy{},
	}
}

// BenchmarkStacks tells what part of the bare call's throughput is left with both default stacks, 64 callers at once, Raw
// codec: bare and whole take turns, and the ratio is the median of the rounds.
//
//	go test -run '^$' -bench Stacks -benchtime 15x ./bus/bustest
func BenchmarkStacks(b *testing.B) {
	server := bustest.Server(b, embedded.WithAddr("127.0.0.1:0"))
	echo := func(_ context.Context, r *[]byte) (*[]byte, error) { return r, nil }
	party := func(subject string, mws ...endpoint.Middleware) endpoint.Unary[*[]byte, *[]byte] {
		var sides [2]*bus.Bus
		for i := range sides {
			s, err := bus.Connect(server.URL(), bus.WithCodec(codec.Raw), bus.WithLogger(slog.New(slog.DiscardHandler)))
			assert.NoError(b, err)
			b.Cleanup(func() { _ = s.Close() })
			s.Use(mws...)
			sides[i] = s
		}
		assert.NoError(b, sides[0].Serve(subject, endpoint.New(echo, endpoint.Idempotent())))
		return endpoint.Caller[*[]byte, *[]byte](sides[1], subject, endpoint.Idempotent())
	}
	d := whole()
	bare, stacks := party("bare.echo"), party("stacks.echo", middleware.Server(d), middleware.Client(d))
	var ratios []float64
	for b.Loop() {
		without, with := round(b, bare), round(b, stacks)
		ratios = append(ratios, float64(without)/float64(with))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "stacks/bare")
	b.ReportMetric(ratios[len(ratios)/10], "p10")
}

// round returns how long 64 callers take for 20,000 calls.
func round(b *testing.B, echo endpoint.Unary[*[]byte, *[]byte]) time.Duration {
	const callers, calls = 64, 20_000
	body := []byte(`{"A":1,"B":2}`)
	start := time.Now()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls / callers {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				_, err := echo(ctx, &body)
				cancel()
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
