package peer

import (
	"context"
	"runtime"
	"slices"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/endpoint"
)

// Chain is what six middlewares that do nothing add to a call that goes nowhere, in time and allocations.
func Chain() harness.System {
	return harness.System{Name: "chain", Probe: func(string) (map[string]float64, error) {
		with, without := chain(6), chain(0)
		var times, allocs []float64
		for range 9 { // in turns, since the processor's speed changes
			t0, a0, err := without()
			if err != nil {
				return nil, err
			}
			t1, a1, err := with()
			if err != nil {
				return nil, err
			}
			times, allocs = append(times, t1-t0), append(allocs, a1-a0)
		}
		return map[string]float64{"ns": harness.Median(times), "allocs": max(0, harness.Median(allocs))}, nil
	}}
}

// nowhere answers at once.
type nowhere struct{ reply any }

// Handler is the transport's.
func (n nowhere) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { return n.reply, nil }
}

// chain returns what measures a call through n middlewares: its nanoseconds and allocations.
func chain(n int) func() (ns, allocs float64, err error) {
	idle := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) }
	}
	mws := slices.Repeat([]endpoint.Middleware{idle}, n)
	call := endpoint.Caller[*AddRequest, *AddResponse](nowhere{&AddResponse{Sum: 3}}, "chain.add", endpoint.With(mws...))
	return func() (ns, allocs float64, err error) {
		const calls = 100_000
		var before, after runtime.MemStats
		in := request(small)
		runtime.ReadMemStats(&before)
		begin := time.Now()
		for range calls {
			if _, err := call(context.Background(), in); err != nil {
				return 0, 0, err
			}
		}
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		return float64(took) / calls, float64(after.Mallocs-before.Mallocs) / calls, nil
	}
}
