package peer

import (
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// Stacks are ours with bytes behind the default stacks on both sides: the bare call, each part by itself, and all of them. The
// parts are those that cost something on each call.
func Stacks() []harness.System {
	var systems []harness.System
	for _, part := range []string{"bare", "none", "log", "metrics", "tracing", "timeout", "retry", "breaker", "whole"} {
		subject := "stacks." + part
		systems = append(systems, harness.System{
			Name: "stacks-" + part, Broker: true,
			Serve: func(url string) (string, error) {
				return serve(subject, endpoint.New(echo, endpoint.Idempotent()), codec.Raw, stack(part, 5*time.Second)...)(url)
			},
			Dial: func(url string) (func(int) harness.Call, error) {
				return dialBytes(subject, stack(part, 5*time.Second)...)(url)
			},
		})
	}
	return systems
}

// stack is that of a part: metrics, traces that are not sampled, a log at warn, deadlines, retries, a breaker. Recover and
// Validate are always there, but for the bare call.
func stack(part string, timeout time.Duration) []endpoint.Middleware {
	if part == "bare" {
		return nil
	}
	with := func(names ...string) bool { return part == "whole" || slices.Contains(names, part) }
	var d middleware.Defaults
	if with("metrics") {
		d.Metrics = metrics.New(prometheus.NewRegistry())
	}
	if with("tracing") {
		d.Tracing = tracing.New(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample())), nil)
	}
	if with("log") {
		d.Log = slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})) //nolint:sloglint // a handler of life, at warn
	}
	if with("timeout") {
		d.Timeout = timeout
	}
	if with("retry") {
		d.Retry = &middleware.RetryPolicy{}
	}
	if with("breaker") {
		d.Breaker = &middleware.BreakerPolicy{}
	}
	return []endpoint.Middleware{middleware.Server(d), middleware.Client(d)}
}
