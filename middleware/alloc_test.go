package middleware_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

var reply any = &addResponse{Sum: 3}

func instant(context.Context, *endpoint.Call) (any, error) { return reply, nil }

// wait is what a transport does with a context: it asks for the deadline and not for a channel.
func wait(ctx context.Context, _ *endpoint.Call) (any, error) {
	endpoint.Wait(ctx)
	return reply, nil
}

// extra counts what a middleware allocates on the good path of a caller, beyond what the call costs without it.
func extra(t *testing.T, h endpoint.Handler, mw endpoint.Middleware, opts ...endpoint.Option) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	ctx = endpoint.WithHeader(ctx)
	measure := func(opts ...endpoint.Option) float64 {
		call := caller(h, opts...)
		req := &addRequest{A: 1, B: 2}
		return testing.AllocsPerRun(1000, func() {
			if _, err := call(ctx, req); err != nil {
				t.Fatal(err)
			}
		})
	}
	return measure(append(opts, mw)...) - measure(opts...)
}

func TestAllocs(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(nil, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	again := middleware.Retry(middleware.RetryPolicy{})
	for _, tc := range []struct {
		name string
		mw   endpoint.Middleware
		opts []endpoint.Option
		most float64
	}{
		{"Recover", middleware.Recover(), nil, 0},
		{"Log, disabled", middleware.Log(quiet), nil, 0},
		{"Timeout", middleware.Timeout(time.Second), nil, 1},
		{"Timeout, context tighter", middleware.Timeout(2 * time.Hour), nil, 0},
		{"RateLimit", middleware.RateLimit(rate.NewLimiter(rate.Inf, 0)), nil, 0},
		{"Retry", again, nil, 0},
		{"Retry, idempotent", again, []endpoint.Option{endpoint.Idempotent()}, 1},
		{"Forward", middleware.Forward(), nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.True(t, extra(t, wait, tc.mw, tc.opts...) <= tc.most, "allocations within bounds")
		})
	}
}

func TestAllocsFromKit(t *testing.T) {
	mw := middleware.FromKit(func(next kitFunc) kitFunc { return next })
	assert.True(t, extra(t, instant, mw) <= 1, "what carries the call")
}

func TestAllocsRetryHeader(t *testing.T) {
	ctx := endpoint.WithHeader(t.Context(), "a", "b")
	measure := func(opts ...endpoint.Option) float64 {
		call := caller(instant, opts...)
		return testing.AllocsPerRun(1000, func() { _, _ = call(ctx, &addRequest{}) })
	}
	assert.True(t, measure(middleware.Retry(middleware.RetryPolicy{}))-measure() <= 1, "one copy of the headers")
}

func TestAllocsLogFailureDisabled(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(nil, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		c := newCall(side)
		h := middleware.Log(quiet)(fail(errDraining))
		assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c) }), 0, side.String())
	}
}

func TestAllocsRateLimitRefusal(t *testing.T) {
	c := newCall(endpoint.ServerSide)
	h := middleware.RateLimit(rate.NewLimiter(0, 0))(instant)
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c) }), 1, "the error")
}

func BenchmarkMiddleware(b *testing.B) {
	quiet := slog.New(slog.NewTextHandler(nil, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	for _, bc := range []struct {
		name string
		opts []endpoint.Option
	}{
		{"none", nil},
		{"Recover", []endpoint.Option{middleware.Recover()}},
		{"Log", []endpoint.Option{middleware.Log(quiet)}},
		{"Timeout", []endpoint.Option{middleware.Timeout(time.Second)}},
		{"RateLimit", []endpoint.Option{middleware.RateLimit(rate.NewLimiter(rate.Inf, 0))}},
		{"Retry", []endpoint.Option{middleware.Retry(middleware.RetryPolicy{})}},
		{"RetryIdempotent", []endpoint.Option{middleware.Retry(middleware.RetryPolicy{}), endpoint.Idempotent()}},
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
}
