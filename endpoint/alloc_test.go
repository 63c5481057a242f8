package endpoint_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

var fixed = &addResponse{Sum: 3}

// trivial is a transport that costs nothing itself.
var trivial = transportFunc(func(context.Context, *endpoint.Call) (any, error) { return fixed, nil })

func sixNoops() []endpoint.Option {
	return []endpoint.Option{endpoint.With(slices.Repeat([]endpoint.Middleware{noop}, 6)...)}
}

func allocs(t *testing.T, f func()) float64 {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates: allocations are counted without it")
	}
	return testing.AllocsPerRun(1000, f)
}

func TestCallerAllocs(t *testing.T) {
	ctx := t.Context()
	sum := caller(trivial)
	assert.Equal(t, allocs(t, func() { _, _ = sum(ctx, request) }), 1, "the Call alone")
	bounded := caller(trivial, endpoint.Timeout(1e12))
	assert.Equal(t, allocs(t, func() { _, _ = bounded(ctx, request) }), 1, "a deadline costs nothing")
}

// A call that nobody can keep costs nothing; one that middleware saw is a Call of its own.
func TestReleasedCallAllocs(t *testing.T) {
	ctx := t.Context()
	releasing := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		c.Release()
		return fixed, nil
	})
	bare, dressed := caller(releasing), caller(releasing, endpoint.Middleware(noop))
	assert.Equal(t, allocs(t, func() { _, _ = bare(ctx, request) }), 0)
	assert.Equal(t, allocs(t, func() { _, _ = dressed(ctx, request) }), 1)
}

// Bytes by value are no allocation beside the Call that middleware sees, on either side.
func TestBytesAllocs(t *testing.T) {
	ctx, b := t.Context(), make([]byte, 20)
	loop := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		request, reply := c.Sizes()
		assert.Equal(t, request+reply, 0, "nothing is encoded yet")
		m, err := c.Message()
		if err != nil {
			return nil, err
		}
		assert.Equal(t, len(*m.(*[]byte)), len(b))
		return m, nil
	})
	echo := endpoint.Caller[[]byte, []byte](loop, "svc.op", endpoint.Codec(codec.Raw), endpoint.Middleware(noop))
	assert.Equal(t, allocs(t, func() { _, _ = echo(ctx, b) }), 1, "the Call")

	ep := endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { return r, nil }, endpoint.Middleware(noop))
	serve := func() {
		c := endpoint.NewCall(ep.Spec(), "svc.op", endpoint.ServerSide)
		c.SetBodyAt(&b, codec.Raw.Name(), codec.Raw)
		reply, err := ep.Handler()(c.Begin(ctx, time.Time{}), c)
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := c.EncodedReply(reply)
		if err != nil || len(body) != len(b) {
			t.Fatal(len(body), err)
		}
		c.End()
	}
	seal := allocs(t, func() { ep.Handler() })
	assert.Equal(t, allocs(t, serve)-seal, 1, "the Call")
}

// A Call is one of the allocator's 512 bytes; one field more would cost each call 64.
func TestCallSize(t *testing.T) {
	assert.True(t, unsafe.Sizeof(endpoint.Call{}) <= 512, fmt.Sprint(unsafe.Sizeof(endpoint.Call{}), " bytes"))
}

func TestMiddlewareAllocs(t *testing.T) {
	ctx := t.Context()
	bare, wrapped := caller(trivial), caller(trivial, sixNoops()...)
	assert.Equal(t, allocs(t, func() { _, _ = wrapped(ctx, request) }), allocs(t, func() { _, _ = bare(ctx, request) }))
}

func BenchmarkMiddleware(b *testing.B) {
	for name, opts := range map[string][]endpoint.Option{"0": nil, "6": sixNoops()} {
		b.Run(name, func(b *testing.B) {
			sum := caller(trivial, opts...)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = sum(b.Context(), request)
			}
		})
	}
}

func BenchmarkMux(b *testing.B) {
	sum := caller(serve(b, endpoint.New(add)))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = sum(b.Context(), request)
	}
}
