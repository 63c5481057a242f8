package middleware_test

import (
	"context"
	"errors"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

var (
	travelled = []byte(`{"Sum":3}`)
	jsonOnly  = codec.NewSet(codec.JSON)
)

// travel is what a transport does: it sends bytes, and its reply came as such.
func travel(ctx context.Context, c *endpoint.Call) (any, error) {
	c.Body()
	endpoint.Wait(ctx)
	return c.SetReply(travelled, "application/json", jsonOnly)
}

func TestAllocsShared(t *testing.T) {
	never := func() bool { return false }
	for _, tc := range []struct {
		name string
		mw   endpoint.Middleware
		opts []endpoint.Option
		most float64
	}{
		{"Validate, no method", middleware.Validate(), nil, 0},
		{"ValidateWith", middleware.ValidateWith(func(any) error { return nil }), nil, 0},
		{"Authenticate, a caller", middleware.Authenticate(byToken), nil, 0},
		{"Coalesce, a write", middleware.Coalesce(nil), nil, 0},
		{"Coalesce", middleware.Coalesce(nil), []endpoint.Option{endpoint.ReadOnly()}, 12},
		{"Cache, a write", middleware.Cache(middleware.CachePolicy{}), nil, 0},
		{"Cache, a hit", middleware.Cache(middleware.CachePolicy{TTL: 1 << 40}), []endpoint.Option{endpoint.ReadOnly()}, 0},
		{"Fallback", middleware.Fallback(makeshift), nil, 0},
		{"Fault", middleware.Fault(middleware.FaultPolicy{}), nil, 0},
		{"Fault, not armed", middleware.Fault(middleware.FaultPolicy{Armed: never, ErrorShare: 1}), nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := extra(t, travel, tc.mw, tc.opts...)
			t.Log(n)
			assert.True(t, n <= tc.most, "allocations within bounds")
		})
	}
}

func TestAllocsValidate(t *testing.T) {
	spec := endpoint.New(func(context.Context, *picky) (*addResponse, error) { return nil, nil }).Spec()
	c := endpoint.NewCall(spec, "svc.add", endpoint.ServerSide)
	c.SetBody([]byte(`{"A":1}`), "application/json", codec.JSON)
	h := middleware.Validate()(instant)
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c) }), 0)
}

func TestAllocsAuthenticate(t *testing.T) {
	c := supply(endpoint.ServerSide, 5000)
	for _, tc := range []struct {
		err  error
		most float64
	}{{nil, 0}, {context.Canceled, 2}, {endpoint.PermissionDenied.New(""), 1}, {errors.New("secret"), 1}} {
		h := middleware.Authenticate(func(ctx context.Context, _ *endpoint.Call) (context.Context, error) { return ctx, tc.err })(instant)
		ctx := t.Context()
		assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(ctx, c()) }), tc.most)
	}
}

func TestAllocsFault(t *testing.T) {
	c := newCall(endpoint.ServerSide)
	h := middleware.Fault(middleware.FaultPolicy{Armed: always, ErrorShare: 1})(instant)
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c) }), 1, "the error")
}

func BenchmarkShared(b *testing.B) {
	for _, bc := range []struct {
		name string
		mws  []endpoint.Option
	}{
		{"bare", nil},
		{"Validate", []endpoint.Option{middleware.Validate()}},
		{"Coalesce", []endpoint.Option{endpoint.ReadOnly(), middleware.Coalesce(nil)}},
		{"Cache hit", []endpoint.Option{endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{TTL: 1 << 40})}},
		{"Cache miss", []endpoint.Option{endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{TTL: 1})}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			call := caller(travel, bc.mws...)
			ctx, req := b.Context(), &addRequest{A: 1, B: 2}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = call(ctx, req)
			}
		})
	}
}
