package bustest_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// seen is what those who watch calls saw of their ends: side and code.
type seen struct {
	slog.Handler

	mu    *sync.Mutex
	lines *[]string
	spans *tracetest.InMemoryExporter
	reg   *prometheus.Registry
}

func newSeen() *seen {
	return &seen{slog.DiscardHandler, new(sync.Mutex), new([]string), tracetest.NewInMemoryExporter(), prometheus.NewPedanticRegistry()}
}

func (*seen) Enabled(context.Context, slog.Level) bool { return true }

func (s *seen) Handle(_ context.Context, r slog.Record) error {
	line := map[string]string{}
	r.Attrs(func(a slog.Attr) bool { line[a.Key] = a.Value.String(); return true })
	if r.Message == "rpc" {
		s.mu.Lock()
		defer s.mu.Unlock()
		*s.lines = append(*s.lines, line["side"]+" "+line["code"])
	}
	return nil
}

// log returns what the log has, sorted, and forgets it.
func (s *seen) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Sorted(slices.Values(*s.lines))
	*s.lines = nil
	return out
}

// traced is log for spans.
func (s *seen) traced() (out []string) {
	for _, span := range s.spans.GetSpans() {
		code := ""
		for _, a := range span.Attributes {
			if a.Key == "rpc.response.status_code" {
				code = a.Value.AsString()
			}
		}
		out = append(out, span.SpanKind.String()+" "+code)
	}
	s.spans.Reset()
	return slices.Sorted(slices.Values(out))
}

// counted is log for the counters of all calls until now.
func (s *seen) counted(t *testing.T) (out []string) {
	t.Helper()
	families, err := s.reg.Gather()
	assert.NoError(t, err)
	for _, f := range families {
		side := map[string]string{"rpc_server_call_duration_seconds": "server", "rpc_client_call_duration_seconds": "client"}[f.GetName()]
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if side != "" && l.GetName() == "rpc_response_status_code" {
					out = append(out, fmt.Sprint(side, " ", l.GetValue(), " ", m.GetHistogram().GetSampleCount()))
				}
			}
		}
	}
	return slices.Sorted(slices.Values(out))
}

// bounded lets so many through.
type bounded struct {
	mu   sync.Mutex
	left int
}

func (b *bounded) Allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left--
	return b.left >= 0
}

func (b *bounded) set(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = n
}

// tail yields A numbers and then does what B says.
func tail(ctx context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
	return func(yield func(*addResponse, error) bool) {
		for i := range r.A {
			if !yield(&addResponse{Sum: i}, nil) {
				return
			}
		}
		switch r.B {
		case 1:
			yield(nil, endpoint.NotFound.New("there is no more"))
		case 2:
			panic("boom")
		case 3:
			<-ctx.Done()
		case 4:
			yield(nil, endpoint.Unavailable.New("out of order"))
		}
	}
}

// The recommended stacks surround streams on both sides: each of them sees one end of a stream, with its code, and what refuses
// calls refuses streams.
func TestStacksSurroundStreams(t *testing.T) {
	s, see, limit := bustest.Server(t, unheard()), newSeen(), &bounded{left: 100}
	d := middleware.Defaults{
		Log: slog.New(see), Metrics: metrics.New(see.reg), Tracing: tracing.New(trace.NewTracerProvider(trace.WithSyncer(see.spans)), nil),
		Authenticate: func(ctx context.Context, c *endpoint.Call) (context.Context, error) {
			if c.Header.Get("Who") == "" {
				return ctx, endpoint.Unauthenticated.New("who are you?")
			}
			return ctx, nil
		},
		Limiter: limit, Concurrency: 2, Breaker: &middleware.BreakerPolicy{Failures: 4},
	}
	service, caller := connect(t, s), connect(t, s)
	for _, b := range []*bus.Bus{service, caller} {
		b.Use(middleware.Server(d), middleware.Client(d))
	}
	assert.NoError(t, service.Serve("svc.tail", endpoint.NewServerStream(tail)))
	call := endpoint.ServerStreamCaller[*addRequest, *addResponse](caller, "svc.tail")
	me := endpoint.WithHeader(t.Context(), "Who", "me")
	run := func(ctx context.Context, r *addRequest, most int) error {
		n := 0
		for _, err := range call(ctx, r) {
			if err != nil {
				return err
			}
			if n++; n == most {
				break
			}
		}
		return nil
	}
	for _, c := range []struct {
		name           string
		ctx            context.Context
		r              *addRequest
		most           int
		client, server string
	}{
		{"ends well", me, &addRequest{A: 100}, 0, "ok", "ok"},
		{"fails", me, &addRequest{A: 100, B: 1}, 0, "not_found", "not_found"},
		{"panics", me, &addRequest{A: 100, B: 2}, 0, "internal", "internal"},
		{"is left", me, &addRequest{A: 3, B: 3}, 3, "canceled", "canceled"},
		{"of a stranger", t.Context(), &addRequest{A: 3}, 0, "unauthenticated", "unauthenticated"},
		{"is out of order", me, &addRequest{A: 3, B: 4}, 0, "unavailable", "unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := run(c.ctx, c.r, c.most)
			if c.most == 0 {
				assert.Equal(t, endpoint.CodeOf(err).String(), c.client)
			}
			var log []string
			assert.Eventually(t, func() bool { log = append(log, see.log()...); return len(log) == 2 }, "both sides log once")
			slices.Sort(log)
			assert.Equal(t, log, []string{"client " + c.client, "server " + c.server})
			assert.Eventually(t, func() bool { return len(see.spans.GetSpans()) == 2 }, "both sides trace once")
			assert.Equal(t, see.traced(), []string{"client " + c.client, "server " + c.server})
		})
	}
	var want []string
	for _, side := range []string{"client", "server"} {
		for _, code := range []string{"canceled", "internal", "not_found", "ok", "unauthenticated", "unavailable"} {
			want = append(want, side+" "+code+" 1")
		}
	}
	assert.Eventually(t, func() bool { return len(see.counted(t)) == len(want) })
	assert.Equal(t, see.counted(t), want)

	limit.set(0)
	assert.ErrorIs(t, run(me, &addRequest{A: 3}, 0), endpoint.ResourceExhausted, "the limit holds for streams")
	limit.set(100)

	// Two that live have the places of the bulkhead; a third is refused, and the places are given back.
	ctx, cancel := context.WithCancel(me)
	defer cancel()
	first, done := make(chan bool), make(chan error, 2)
	for range 2 {
		go func() {
			var last error
			for _, err := range call(ctx, &addRequest{A: 1, B: 3}) {
				if last = err; err == nil {
					first <- true
				}
			}
			done <- last
		}()
		<-first
	}
	assert.ErrorIs(t, run(me, &addRequest{A: 3}, 0), endpoint.ResourceExhausted, "the bulkhead holds for streams")
	cancel()
	for range 2 {
		assert.ErrorIs(t, <-done, endpoint.Canceled)
	}
	assert.Eventually(t, func() bool { return run(me, &addRequest{A: 3}, 0) == nil }, "there is room again")

	// What ends as the service's failure opens the breaker, and then no stream begins.
	for range 4 {
		assert.ErrorIs(t, run(me, &addRequest{A: 3, B: 4}, 0), endpoint.Unavailable)
	}
	err := run(me, &addRequest{A: 3}, 0)
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
}
