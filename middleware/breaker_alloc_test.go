package middleware_test

import (
	"context"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestAllocsBreaker(t *testing.T) {
	for _, kind := range []string{"plain", "told"} {
		p := middleware.BreakerPolicy{}
		if kind == "told" {
			p.OnStateChange, p.Report = func(string, middleware.BreakerState, middleware.BreakerState) {}, func(string, string, float64) {}
		}
		assert.Equal(t, extra(t, wait, middleware.Breaker(p)), 0, kind)
	}
}

func TestAllocsBreakerRefusal(t *testing.T) {
	ep := endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return nil, endpoint.Unavailable.New("x") })
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		h := middleware.Breaker(middleware.BreakerPolicy{OpenFor: time.Hour})(ep.Handler())
		c := endpoint.NewCall(ep.Spec(), "svc.add", side)
		c.SetBody([]byte("{}"), codec.JSON.Name(), codec.JSON)
		for range 6 {
			_, err := h(t.Context(), c)
			assert.Equal(t, reasonOf(err), "")
		}
		assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c) }), 1, "the error", side.String())
		_, err := h(t.Context(), c)
		assert.Equal(t, reasonOf(err), endpoint.ReasonBreakerOpen)
	}
}

func BenchmarkBreaker(b *testing.B) {
	for _, bc := range []struct {
		name string
		opts []endpoint.Option
	}{
		{"none", nil},
		{"Breaker", []endpoint.Option{middleware.Breaker(middleware.BreakerPolicy{})}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			call := caller(wait, bc.opts...)
			req := &addRequest{}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = call(ctx, req)
			}
		})
	}
	b.Run("refusal", func(b *testing.B) {
		h := middleware.Breaker(middleware.BreakerPolicy{OpenFor: time.Hour})(fail(endpoint.Unavailable))
		c := newCall(endpoint.ClientSide)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = h(b.Context(), c)
		}
	})
}
