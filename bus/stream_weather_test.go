package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Whatever happens to the net while streams of all kinds are under way: what a consumer gets is the beginning of what was sent, in
// order; a stream that ends well is whole, at both ends; all end in time, and nothing stays behind.
func TestStreamsInAnyWeather(t *testing.T) {
	seeds := uint64(scaled(60, 2000))
	var whole, broken atomic.Int64
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { streamWeather(t, seed, &whole, &broken) })
	}
	t.Logf("%d streams ended well, %d did not (full: %v)", whole.Load(), broken.Load(), full())
	assert.True(t, whole.Load() > 0 && broken.Load() > 0, "both happen")
}

const weatherItems = 300

// slowly yields weatherItems numbers, at a pace of its own.
func slowly(ctx context.Context, pace time.Duration, yield func(i int) bool) {
	for i := range weatherItems {
		if i%10 == 0 {
			select {
			case <-time.After(pace):
			case <-ctx.Done():
				return
			}
		}
		if !yield(i + 1) {
			return
		}
	}
}

func streamWeather(t *testing.T, seed uint64, whole, broken *atomic.Int64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 17))
	n, service, caller := far(t)
	latency(n)
	serve(t, service, "svc.tail", endpoint.NewServerStream(func(ctx context.Context, q *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			slowly(ctx, time.Duration(q.A)*time.Millisecond, func(i int) bool { return yield(&AddResponse{i}, nil) })
		}
	}))
	serve(t, service, "svc.total", endpoint.NewClientStream(total))
	serve(t, service, "svc.double", endpoint.NewBidiStream(double))
	paces := make([]time.Duration, 12)
	for i := range paces {
		paces[i] = time.Duration(1+r.IntN(300)) * time.Millisecond
	}
	var wg sync.WaitGroup
	for i, pace := range paces {
		wg.Go(func() {
			err := streamOnce(t, caller, i, pace, fmt.Sprint("seed ", seed, ", stream ", i))
			if err == nil {
				whole.Add(1)
				return
			}
			broken.Add(1)
			assert.True(t, endpoint.CodeOf(err) == endpoint.Unavailable || endpoint.CodeOf(err) == endpoint.DataLoss, fmt.Sprint("seed ", seed, ": ", err))
		})
	}
	time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
	strike(t, n, r)
	start := time.Now()
	wg.Wait()
	assert.True(t, time.Since(start) <= time.Minute, "all end in time")
	n.Link("service").Mend()
	n.Link("caller").Mend()
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams(), 0, fmt.Sprint("seed ", seed))
	for _, name := range []string{"tail", "total", "double"} {
		assert.Equal(t, statsOf(t, service, "svc."+name).InFlight, int64(0), fmt.Sprint("seed ", seed))
	}
	assert.NoError(t, streamOnce(t, caller, 2, time.Millisecond, "healed"))
}

// streamOnce runs a stream of one of the kinds and holds what came against what was sent.
func streamOnce(t *testing.T, caller *bus.Bus, i int, pace time.Duration, what string) error {
	t.Helper()
	ctx := context.Background()
	in := func(yield func(*AddRequest, error) bool) {
		slowly(ctx, pace, func(i int) bool { return yield(&AddRequest{A: i}, nil) })
	}
	var sums []int
	var err error
	times := 1
	switch i % 3 {
	case 0:
		sums, err = collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: int(pace / time.Millisecond)}))
	case 1:
		var got *AddResponse
		if got, err = totaler(caller, "svc.total")(ctx, in); err == nil {
			assert.Equal(t, got.Sum, weatherItems*(weatherItems+1)/2, what)
		}
		return err
	case 2:
		times = 2
		sums, err = collect(doubler(caller, "svc.double")(ctx, in))
	}
	assert.Equal(t, append([]int{}, sums...), upTo(len(sums), times), what)
	assert.True(t, err != nil || len(sums) == weatherItems, what)
	return err
}
