package tracing_test

import (
	"context"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

var reply any = &addResponse{Sum: 3}

// wait is what a transport does with a context: it asks for the deadline and not for a channel.
func wait(ctx context.Context, _ *endpoint.Call) (any, error) {
	endpoint.Wait(ctx)
	return reply, nil
}

// costs are calls whose cost is promised: what they allocate beyond those without tracing.
var costs = []struct {
	name string
	tp   trace.TracerProvider
	side endpoint.Side
	came string // the trace that came with a request
	want float64
}{
	{"client, never sampled", never(), endpoint.ClientSide, "", 5},
	{"client, no provider", nil, endpoint.ClientSide, "", 2},
	{"client, noop provider", noop.NewTracerProvider(), endpoint.ClientSide, "", 2},
	{"server, never sampled", never(), endpoint.ServerSide, "", 5},
	{"server, below an unsampled trace", sdk.NewTracerProvider(), endpoint.ServerSide, unsampled, 4},
	{"server, no provider", nil, endpoint.ServerSide, "", 2},
	{"server, no provider, unsampled trace", nil, endpoint.ServerSide, unsampled, 1},
}

// one returns a function that makes one call, with options in the order of a chain.
func one(ctx context.Context, side endpoint.Side, came string, mws ...endpoint.Middleware) func() {
	if side == endpoint.ClientSide {
		call := caller(transport(wait), "svc.add", endpoint.With(mws...))
		req := &addRequest{A: 1, B: 2}
		return func() { _, _ = call(ctx, req) }
	}
	spec := newCall(side).Spec
	h := endpoint.Chain(mws...)(wait)
	return func() {
		c := endpoint.NewCall(spec, "svc.add", side)
		c.SetTrace(came)
		_, _ = h(ctx, c)
	}
}

func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: allocations are counted without it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, tc := range costs {
		t.Run(tc.name, func(t *testing.T) {
			mw := tracing.New(tc.tp, nil)
			bare := testing.AllocsPerRun(1000, one(ctx, tc.side, tc.came))
			assert.Equal(t, testing.AllocsPerRun(1000, one(ctx, tc.side, tc.came, mw))-bare, tc.want)
			assert.Equal(t, testing.AllocsPerRun(1000, one(ctx, tc.side, tc.came, twice(mw, nil)))-bare, tc.want, "a second time")
		})
	}
}

func BenchmarkTracing(b *testing.B) {
	for _, bc := range costs {
		b.Run(bc.name, func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			call := one(ctx, bc.side, bc.came, tracing.New(bc.tp, nil))
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
	for _, side := range []endpoint.Side{endpoint.ClientSide, endpoint.ServerSide} {
		b.Run("bare "+side.String(), func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			call := one(ctx, side, "")
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
		b.Run("sampled "+side.String(), func(b *testing.B) {
			call := one(b.Context(), side, "", tracing.New(sdk.NewTracerProvider(), nil))
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}
