package metrics_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

func TestAllocs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		for _, tc := range []struct {
			name  string
			h     endpoint.Handler
			trace string
			most  float64
		}{
			{"ok", ok, "", 0},
			{"not sampled", ok, traced[:53] + "00", 0},
			{"failed", fail(endpoint.NotFound.New("x")), "", map[endpoint.Side]float64{endpoint.ServerSide: 2}[side]}, // the verdict
			{"sampled", ok, traced, 12},
		} {
			t.Run(side.String()+", "+tc.name, func(t *testing.T) {
				h := metrics.New(prometheus.NewRegistry())(tc.h)
				c := newCall(side, "svc", "add")
				c.SetTrace(tc.trace)
				got := testing.AllocsPerRun(1000, func() { _, _ = h(ctx, c) })
				assert.True(t, got <= tc.most, fmt.Sprint(got, " allocations are within bounds"))
			})
		}
	}
}

func TestAllocsGauges(t *testing.T) {
	report := metrics.Gauges(prometheus.NewRegistry())
	assert.Equal(t, testing.AllocsPerRun(1000, func() { report("retry_budget", "svc.add", 3) }), 0)
}

func BenchmarkNew(b *testing.B) {
	for _, bc := range []struct {
		name, trace string
		h           endpoint.Handler
		side        endpoint.Side
	}{
		{"server", "", ok, endpoint.ServerSide},
		{"client", "", ok, endpoint.ClientSide},
		{"unsampled", traced[:53] + "00", ok, endpoint.ServerSide},
		{"sampled", traced, ok, endpoint.ServerSide},
		{"failed", "", fail(endpoint.NotFound.New("x")), endpoint.ServerSide},
	} {
		b.Run(bc.name, func(b *testing.B) {
			h := metrics.New(prometheus.NewRegistry())(bc.h)
			c := newCall(bc.side, "svc", "add")
			c.SetTrace(bc.trace)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = h(b.Context(), c)
			}
		})
	}
}

func BenchmarkGauges(b *testing.B) {
	report := metrics.Gauges(prometheus.NewRegistry())
	b.ReportAllocs()
	for b.Loop() {
		report("retry_budget", "svc.add", 3)
	}
}
