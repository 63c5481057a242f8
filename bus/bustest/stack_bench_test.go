package bustest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// parties are what BenchmarkStacks compares: the bare call, each part of the stacks by itself, and all of them.
var parties = []string{"bare", "none", "log", "metrics", "tracing", "timeout", "retry", "breaker", "whole"}

// stacks are those of one party, of what costs something on each call: metrics, traces that are not sampled, a log at warn,
// deadlines, retries, a breaker. Recover and Validate are always there, but for the bare call.
func stacks(party string) []endpoint.Middleware {
	var d middleware.Defaults
	if party == "metrics" || party == "whole" {
		d.Metrics = metrics.New(prometheus.NewRegistry())
	}
	if party == "tracing" || party == "whole" {
		d.Tracing = tracing.New(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample())), nil)
	}
	if party == "log" || party == "whole" {
		d.Log = slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})) //nolint:sloglint // a handler of life, at warn
	}
	if party == "timeout" || party == "whole" {
		d.Timeout = 5 * time.Second
	}
	if party == "retry" || party == "whole" {
		d.Retry = &middleware.RetryPolicy{}
	}
	if party == "breaker" || party == "whole" {
		d.Breaker = &middleware.BreakerPolicy{}
	}
	if party == "bare" {
		return nil
	}
	return []endpoint.Middleware{middleware.Server(d), middleware.Client(d)}
}

// member connects a bus with the stacks of a party.
func member(tb testing.TB, url, party string) *bus.Bus {
	tb.Helper()
	b, err := bus.Connect(url, bus.WithCodec(codec.Raw), bus.WithLogger(slog.New(slog.DiscardHandler)))
	assert.NoError(tb, err)
	tb.Cleanup(func() { _ = b.Close() })
	b.Use(stacks(party)...)
	return b
}

// BenchmarkStacks tells what part of the bare call's throughput is left with each part of the default stacks, on both sides,
// and with all: 64 callers at once, Raw codec, idempotent calls with a deadline. Caller, service and broker are three processes.
// All take turns; the figures are medians of the rounds.
//
//	go test -run '^$' -bench Stacks -benchtime 25x ./bus/bustest
func BenchmarkStacks(b *testing.B) {
	url := play(b, "broker", "")
	play(b, "service", url)
	calls := map[string]endpoint.Unary[*[]byte, *[]byte]{}
	for _, p := range parties {
		calls[p] = endpoint.Caller[*[]byte, *[]byte](member(b, url, p), p+".echo", endpoint.Idempotent())
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, p := range parties {
			took[p] = append(took[p], round(b, calls[p]))
		}
	}
	for _, p := range parties {
		ratios := make([]float64, len(took[p]))
		for i := range ratios {
			ratios[i] = float64(took["bare"][i]) / float64(took[p][i])
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], p+"/bare")
	}
}

// round returns how long 64 callers take for 20,000 calls.
func round(b *testing.B, echo endpoint.Unary[*[]byte, *[]byte]) time.Duration {
	b.Helper()
	const callers, calls = 64, 20_000
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	body := []byte(`{"A":1,"B":2}`)
	start := time.Now()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls / callers {
				if _, err := echo(ctx, &body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

const (
	benchRole = "POSTBUS_BENCH_ROLE"
	benchURL  = "POSTBUS_BENCH_URL"
)

// play starts this test binary again in a role, and returns the line it says when it is ready. It ends with the benchmark.
func play(b *testing.B, role, url string) string {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestBenchRole$")
	cmd.Env = append(os.Environ(), benchRole+"="+role, benchURL+"="+url)
	cmd.Stderr = b.Output()
	in, err := cmd.StdinPipe()
	assert.NoError(b, err)
	out, err := cmd.StdoutPipe()
	assert.NoError(b, err)
	assert.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	assert.NoError(b, err, role)
	return strings.TrimSpace(line)
}

// TestBenchRole is not a test but a role of BenchmarkStacks' other processes; by itself it does nothing.
func TestBenchRole(t *testing.T) {
	url := os.Getenv(benchURL)
	switch os.Getenv(benchRole) {
	case "broker":
		s, err := embedded.Start()
		assert.NoError(t, err)
		defer s.Shutdown()
		url = s.URL()
	case "service":
		echo := func(_ context.Context, r *[]byte) (*[]byte, error) { return r, nil }
		for _, p := range parties {
			assert.NoError(t, member(t, url, p).Serve(p+".echo", endpoint.New(echo, endpoint.Idempotent())))
		}
	default:
		return
	}
	fmt.Println(url)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
}
