package middleware_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// traffic counts the calls and the further attempts of calls that all fail, by time.
type traffic struct {
	mu             sync.Mutex
	calls, further []time.Time
}

func (f *traffic) handle(_ context.Context, c *endpoint.Call) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Attempt == 0 {
		f.calls = append(f.calls, time.Now())
	} else {
		f.further = append(f.further, time.Now())
	}
	return nil, errDraining
}

// between counts what lies in the window that ends with end.
func between(at []time.Time, end time.Time, window time.Duration) (n int) {
	for _, a := range at {
		if a.After(end.Add(-window)) && !a.After(end) {
			n++
		}
	}
	return n
}

func (f *traffic) fault(ratio, perSecond float64, window time.Duration) bool {
	for _, end := range f.further {
		most := ratio*float64(between(f.calls, end, window)) + perSecond*window.Seconds()
		if float64(between(f.further, end, window)) > most+1e-9 {
			return true
		}
	}
	return false
}

// burst is some calls at once, and a pause.
type burst struct {
	calls int
	pause time.Duration
}

// TestBudgetProperty: for every window that ends with a further attempt, attempts ≤ ratio × calls + floor.
func TestBudgetProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := middleware.BudgetPolicy{
			Ratio:     rapid.SampledFrom([]float64{0, 0.5, -1}).Draw(rt, "ratio"),
			PerSecond: rapid.SampledFrom([]float64{0, 0.5, -1}).Draw(rt, "per second"),
			Window:    rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(rt, "window"),
		}
		bursts := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) burst {
			return burst{
				calls: rapid.IntRange(0, 60).Draw(rt, "calls"),
				pause: time.Duration(rapid.IntRange(0, 3000).Draw(rt, "pause")) * time.Millisecond,
			}
		}), 1, 30).Draw(rt, "bursts")
		var f traffic
		synctest.Test(t, func(t *testing.T) {
			call := caller(f.handle, middleware.Retry(middleware.RetryPolicy{Backoff: 1, MaxBackoff: 1, Budget: middleware.NewBudget(p)}))
			for _, b := range bursts {
				for range b.calls {
					_, _ = call(t.Context(), &addRequest{})
				}
				time.Sleep(b.pause)
			}
		})
		ratio, perSecond, window := max(p.Ratio, 0), max(p.PerSecond, 0), p.Window
		if p.Ratio == 0 {
			ratio = 0.1
		}
		if p.PerSecond == 0 {
			perSecond = 10
		}
		if window == 0 {
			window = 10 * time.Second
		}
		if f.fault(ratio, perSecond, window) {
			rt.Fatalf("more than the budget: %d calls, %d further attempts", len(f.calls), len(f.further))
		}
	})
}

// TestBudgetIsNotStingy: in an outage with steady traffic, what is allowed is also given, up to a slot's rounding.
func TestBudgetIsNotStingy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f traffic
		call := caller(f.handle, middleware.Retry(middleware.RetryPolicy{Backoff: 1, MaxBackoff: 1, Budget: &middleware.Budget{}}))
		for range 60_000 { // a minute at 1,000 calls/s
			_, _ = call(t.Context(), &addRequest{})
			time.Sleep(time.Millisecond)
		}
		amplification := 1 + float64(len(f.further))/float64(len(f.calls))
		assert.True(t, amplification <= 1.10+0.01+100./60_000, "1.10 and 10/s")
		assert.True(t, amplification > 1.09, "about 1.11")
	})
}

func TestBudgetComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f traffic
		call := caller(f.handle, middleware.Retry(middleware.RetryPolicy{Backoff: 1, MaxBackoff: 1}))
		for i := range 3 {
			for range 1000 {
				_, _ = call(t.Context(), &addRequest{})
			}
			n := len(f.further) - i*200
			assert.Equal(t, n, 200, "100, and a tenth of the calls")
			time.Sleep(12 * time.Second)
		}
	})
}

func TestBudgetConcurrent(t *testing.T) {
	const workers, each = 8, 500
	var f traffic
	call := caller(f.handle, middleware.Retry(middleware.RetryPolicy{
		Attempts: 5, Backoff: 1, MaxBackoff: 1, Budget: middleware.NewBudget(middleware.BudgetPolicy{Window: time.Hour, PerSecond: -1}),
	}))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				_, _ = call(t.Context(), &addRequest{})
			}
		})
	}
	wg.Wait()
	assert.Equal(t, len(f.calls), workers*each)
	assert.True(t, len(f.further) <= workers*each/10, "at most a tenth")
	assert.True(t, len(f.further) >= workers*each/10-5, "and not much less")
}

// A bridge may be made to call any number of services by whoever chooses its paths.
func TestBudgetsAreBounded(t *testing.T) {
	again := middleware.Retry(middleware.RetryPolicy{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 20_000 {
		call := endpoint.Caller[*addRequest, *addResponse](transport(ok), fmt.Sprintf("svc-%d.add", i), again)
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
	}
	grown := int64(heap()) - int64(before)
	runtime.KeepAlive(again)
	assert.True(t, grown < 2<<20, fmt.Sprintf("grew by %d bytes", grown))
}
