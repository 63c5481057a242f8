package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// workshop is an endpoint on a Mux that runs some calls at once, each for a time.
type workshop struct {
	places   int
	takes    time.Duration
	patience time.Duration // of callers
	limits   []float64     // as reported
	mu       sync.Mutex
}

func (w *workshop) capacity() float64 { return float64(w.places) / w.takes.Seconds() }

func (w *workshop) report(name, subject string, value float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits = append(w.limits, value)
	if name != "adaptive_limit" || subject != "svc.add" {
		w.limits = append(w.limits, math.NaN())
	}
}

func (w *workshop) open(t testing.TB, mws ...endpoint.Middleware) endpoint.Unary[*addRequest, *addResponse] {
	t.Helper()
	m := endpoint.NewMux()
	work := func(ctx context.Context, r *addRequest) (*addResponse, error) {
		time.Sleep(w.takes)
		return add(ctx, r)
	}
	serve(t, m, "svc.add", endpoint.New(work, endpoint.Concurrency(w.places), endpoint.With(mws...)))
	return endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
}

// tally is how calls ended.
type tally struct{ good, refused, late, other atomic.Int64 }

// rush calls steadily for a time, each call with the callers' patience, and waits for all. It returns good calls per second.
func (w *workshop) rush(t testing.TB, call endpoint.Unary[*addRequest, *addResponse], perSecond float64, d time.Duration) (*tally, float64) {
	t.Helper()
	n := &tally{}
	var wg sync.WaitGroup
	gap := time.Duration(float64(time.Second) / perSecond)
	for start := time.Now(); time.Since(start) < d; time.Sleep(gap) {
		wg.Go(func() {
			_, err := call(within(t, w.patience), &addRequest{})
			switch e, _ := errors.AsType[*endpoint.Error](err); {
			case err == nil:
				n.good.Add(1)
			case e.Code == endpoint.ResourceExhausted && e.Outcome() == endpoint.NotExecuted && e.RetryAfter > 0:
				n.refused.Add(1)
			case e.Code == endpoint.DeadlineExceeded:
				n.late.Add(1)
			default:
				n.other.Add(1)
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(w.takes) // a handler may outlive its caller
	return n, float64(n.good.Load()) / d.Seconds()
}

// TestAdaptiveConcurrencyGoodput: at ten times its capacity a service goes on as at its best, and is as before when it is
// over. Without the middleware it does next to nothing, because it serves those who have left.
func TestAdaptiveConcurrencyGoodput(t *testing.T) {
	const long = 6 * time.Second
	for _, places := range []int{1, 4, 20} {
		t.Run(fmt.Sprint(places), func(t *testing.T) {
			takes := time.Duration(places) * 10 * time.Millisecond // 100/s in any case
			var peak float64
			synctest.Test(t, func(t *testing.T) {
				w := &workshop{places: places, takes: takes, patience: 500 * time.Millisecond}
				_, peak = w.rush(t, w.open(t), w.capacity(), long)
				assert.True(t, peak > 0.98*w.capacity(), "the peak is what the service can do")
			})
			synctest.Test(t, func(t *testing.T) {
				w := &workshop{places: places, takes: takes, patience: 500 * time.Millisecond}
				_, good := w.rush(t, w.open(t), 10*w.capacity(), long)
				assert.True(t, good < peak/4, fmt.Sprintf("without it: %.1f/s of %.1f/s", good, peak))
			})
			synctest.Test(t, func(t *testing.T) {
				w := &workshop{places: places, takes: takes, patience: 500 * time.Millisecond}
				call := w.open(t, middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Report: w.report}))
				n, good := w.rush(t, call, 10*w.capacity(), long)
				t.Logf("goodput %.1f/s of %.1f/s, %d refused, %d late, limits %v", good, peak, n.refused.Load(), n.late.Load(), w.limits)
				assert.True(t, good >= 0.95*peak, fmt.Sprintf("with it: %.1f/s of %.1f/s", good, peak))
				assert.True(t, n.late.Load() < n.good.Load()/20, "callers hear at once")

				_, _ = w.rush(t, call, 0.9*w.capacity(), time.Second)
				n, good = w.rush(t, call, 0.9*w.capacity(), long)
				assert.Equal(t, n.refused.Load()+n.late.Load(), 0, "when it is over")
				assert.True(t, good > 0.89*w.capacity(), "all are served")
			})
		})
	}
}

// TestAdaptiveConcurrencySlowIsNotBusy: latency, however it grows, is not overload.
func TestAdaptiveConcurrencySlowIsNotBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &workshop{places: 200, takes: time.Millisecond, patience: time.Minute}
		call := w.open(t, middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Report: w.report}))
		for _, w.takes = range []time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second, 10 * time.Second} {
			n, _ := w.rush(t, call, 15, 20*time.Second)
			assert.Equal(t, n.refused.Load(), 0, w.takes.String())
		}
		assert.Equal(t, w.limits, []float64{1024}, "the limit stays")
	})
}

// lateCall is a server's call that waited.
func lateCall(wait time.Duration) *endpoint.Call {
	c := newCall(endpoint.ServerSide)
	c.SetReceived(time.Now().Add(-wait))
	return c
}

// TestAdaptiveConcurrencyBurst: a queue that goes away by itself within an interval is no overload.
func TestAdaptiveConcurrencyBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workshop
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Report: w.report})(instant)
		for range 100 {
			for wait := 500 * time.Millisecond; wait >= 0; wait -= 20 * time.Millisecond {
				_, err := h(t.Context(), lateCall(wait))
				assert.NoError(t, err)
				time.Sleep(4 * time.Millisecond)
			}
		}
		assert.Equal(t, w.limits, []float64{1024})
	})
}

// TestAdaptiveConcurrencyStarved: where nobody is ahead of a call that is late all the same, to refuse it would help nobody.
func TestAdaptiveConcurrencyStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{})(instant)
		for range 100 {
			_, err := h(t.Context(), lateCall(50*time.Millisecond))
			assert.NoError(t, err)
			time.Sleep(20*time.Millisecond + 1)
		}
		refused := 0
		for range 100 {
			if _, err := h(t.Context(), lateCall(50*time.Millisecond)); err != nil {
				refused++
			}
			time.Sleep(10 * time.Millisecond)
		}
		assert.Equal(t, refused, 66, "one of three passes: idle for 30 ms each")
	})
}

// TestAdaptiveConcurrencyFewCalls: what nine of them met, however late, may be chance.
func TestAdaptiveConcurrencyFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workshop
		ctx, cancel := context.WithCancel(t.Context())
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Report: w.report})(func(ctx context.Context, c *endpoint.Call) (any, error) {
			if c.Header.Get("stay") != "" {
				return hang(ctx, c)
			}
			return reply, nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { // so that the endpoint is never idle
			c := lateCall(time.Second)
			c.Header.Set("stay", "1")
			_, _ = h(ctx, c)
		})
		synctest.Wait()
		for range 9 {
			time.Sleep(time.Second)
			_, err := h(t.Context(), lateCall(time.Second))
			assert.NoError(t, err)
		}
		for i := range 50 {
			time.Sleep(time.Second)
			_, err := h(t.Context(), lateCall(time.Second))
			assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogWait, fmt.Sprint(i))
		}
		cancel()
		wg.Wait()
		assert.Equal(t, w.limits, []float64{1024, 512, 256, 128, 64, 32}, "by half, since hardly any of it was in use")
	})
}

// TestAdaptiveConcurrencyLimit walks through the law, call by call.
func TestAdaptiveConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workshop
		leave := make(chan struct{})
		stop := sync.OnceFunc(func() { close(leave) })
		defer stop()
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{
			Min: 2, Max: 20, Initial: 10, Target: 5 * time.Millisecond, Interval: 50 * time.Millisecond, Report: w.report,
		})(func(_ context.Context, c *endpoint.Call) (any, error) {
			if c.Header.Get("stay") != "" {
				<-leave
			}
			return reply, nil
		})
		var wg sync.WaitGroup
		interval := func(wait time.Duration) (last error) {
			for range 10 {
				time.Sleep(5 * time.Millisecond)
				_, last = h(t.Context(), lateCall(wait))
			}
			return last
		}
		for range 5 {
			_ = interval(0)
		}
		assert.Equal(t, w.limits, []float64{10}, "none of it was in use")
		stay := func(n int) (refused *atomic.Int64) {
			refused = &atomic.Int64{}
			for range n {
				wg.Go(func() {
					c := lateCall(0)
					c.Header.Set("stay", "1")
					if _, err := h(t.Context(), c); err != nil {
						refused.Add(1)
						e, _ := errors.AsType[*endpoint.Error](err)
						assert.Equal(t, e.Code, endpoint.ResourceExhausted)
						assert.Equal(t, e.Reason(), endpoint.ReasonBacklogFull)
						assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
						assert.Equal(t, e.RetryAfter, 50*time.Millisecond)
					}
				})
				synctest.Wait()
			}
			return refused
		}
		assert.Equal(t, stay(12).Load(), 2, "ten fit")
		_ = interval(0)
		assert.Equal(t, w.limits, []float64{10, 14}, "10 + √10, since it was in use")
		_ = interval(0)
		_ = interval(0)
		assert.Equal(t, w.limits, []float64{10, 14, 17, 20}, "up to Max")
		assert.NoError(t, interval(6*time.Millisecond), "the interval began with a fresh call")
		err := interval(6 * time.Millisecond)
		assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogWait, "stale calls are refused while the queue stands")
		assert.Equal(t, w.limits[4:], []float64{10}, "0.9 × 11 at once, half of 20 at least")
		_ = interval(6 * time.Millisecond)
		assert.Equal(t, w.limits[4:], []float64{10, 9}, "0.9 × 10 at once")
		stop()
		wg.Wait()
		for range 20 {
			_ = interval(6 * time.Millisecond)
		}
		assert.Equal(t, w.limits[len(w.limits)-1], 2, "down to Min")
		_, err = h(t.Context(), lateCall(5*time.Millisecond))
		assert.NoError(t, err, "a fresh call")
		_ = interval(0) // begins in one in which stale calls were refused
		_, err = h(t.Context(), lateCall(6*time.Millisecond))
		assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogWait, "not yet")
		_ = interval(0)
		_ = interval(0)
		_, err = h(t.Context(), lateCall(6*time.Millisecond))
		assert.NoError(t, err, "after an interval without need")
	})
}

// TestAdaptiveConcurrencyFindsTheLimit: where calls get in each other's way beyond eight at once, so that further ones come
// late to their turn, about as many run in the end as keep that wait at the target.
func TestAdaptiveConcurrencyFindsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const smooth, drag, takes = 8, 4 * time.Millisecond, 50 * time.Millisecond // the target is met with 13 at once
		var inside atomic.Int64
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{})(func(context.Context, *endpoint.Call) (any, error) {
			inside.Add(1)
			time.Sleep(takes)
			inside.Add(-1)
			return reply, nil
		})
		var wg sync.WaitGroup
		var sum, n, most int64
		for i := range 20_000 { // 20 s
			wait := time.Duration(max(inside.Load()-smooth, 0)) * drag
			wg.Go(func() { _, _ = h(t.Context(), lateCall(wait)) })
			time.Sleep(time.Millisecond)
			if i >= 10_000 {
				sum, n, most = sum+inside.Load(), n+1, max(most, inside.Load())
			}
		}
		wg.Wait()
		mean := float64(sum) / float64(n)
		t.Logf("%.1f at once, and %d at most", mean, most)
		assert.True(t, mean > smooth && mean < 15, fmt.Sprintf("%.1f at once, and %d at most", mean, most))
		assert.True(t, most <= 20, fmt.Sprintf("%d at once", most))
	})
}

func TestAdaptiveConcurrencyGivesBack(t *testing.T) {
	m := endpoint.NewMux()
	limit := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Max: 1})
	serve(t, m, "svc.bug", endpoint.New(add, endpoint.With(middleware.Recover(), limit, bug)))
	call := endpoint.Caller[*addRequest, *addResponse](m, "svc.bug")
	for range 3 {
		_, err := call(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.Internal, "never at its limit")
	}
	reported := false
	h := endpoint.Chain(middleware.Recover(), middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Max: 1, Report: func(string, string, float64) {
		reported = true
		panic("report")
	}}))(instant)
	_, err := h(t.Context(), newCall(endpoint.ServerSide))
	assert.ErrorIs(t, err, endpoint.Internal)
	assert.True(t, reported, "it was Report that panicked")
	_, err = h(t.Context(), newCall(endpoint.ServerSide))
	assert.NoError(t, err, "its place is free")
}

// TestAdaptiveConcurrencySides: callers pass through, and a call of a transport that does not tell when it came waited for
// nothing.
func TestAdaptiveConcurrencySides(t *testing.T) {
	mw := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Max: 1})
	nested := mw(mw(instant))
	_, err := nested(t.Context(), newCall(endpoint.ClientSide))
	assert.NoError(t, err)
	outer := mw(nested)
	_, err = outer(t.Context(), newCall(endpoint.ServerSide))
	assert.NoError(t, err, "each endpoint has a limit of its own")
	synctest.Test(t, func(t *testing.T) {
		h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{})(instant)
		for range 100 {
			_, err := h(t.Context(), endpoint.NewCall(endpoint.New(add).Spec(), "svc.add", endpoint.ServerSide))
			assert.NoError(t, err)
			time.Sleep(20 * time.Millisecond)
		}
	})
}

func TestAdaptiveConcurrencyFaults(t *testing.T) {
	for _, tc := range []struct {
		p    middleware.AdaptivePolicy
		want []string
	}{
		{
			middleware.AdaptivePolicy{Min: -1, Max: -1, Initial: -1, Target: -1, Interval: -1},
			[]string{"AdaptiveConcurrency", "Min is negative", "Max is negative", "Initial is negative", "Target is negative", "Interval is negative"},
		},
		{middleware.AdaptivePolicy{Min: 9, Max: 8, Initial: 10}, []string{"a Min of 9 is more than a Max of 8", "an Initial of 10 is not between"}},
		{middleware.AdaptivePolicy{Initial: 2000}, []string{"a Max of 1024"}},
	} {
		c := newCall(endpoint.ServerSide)
		_, err := middleware.AdaptiveConcurrency(tc.p)(instant)(t.Context(), c)
		assert.ErrorIs(t, err, endpoint.Internal)
		assert.Contains(t, errors.Unwrap(err).Error(), tc.want...)
	}
	_, err := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Min: 2000})(instant)(t.Context(), newCall(endpoint.ServerSide))
	assert.NoError(t, err, "Max follows Min")
}

func TestAdaptiveConcurrencyParallel(t *testing.T) {
	const most, workers, each = 3, 8, 2000
	var inside atomic.Int64
	h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Max: most})(func(context.Context, *endpoint.Call) (any, error) {
		if inside.Add(1) > most {
			t.Error("too many inside")
		}
		inside.Add(-1)
		return reply, nil
	})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				_, _ = h(t.Context(), newCall(endpoint.ServerSide))
			}
		})
	}
	wg.Wait()
	_, err := h(t.Context(), newCall(endpoint.ServerSide))
	assert.NoError(t, err)
}

func TestAllocsAdaptiveConcurrency(t *testing.T) {
	mw := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Max: 1})
	assert.True(t, extra(t, wait, mw) <= 0, "callers")
	c := supply(endpoint.ServerSide, 3000) // a call runs once
	inner := instant
	h := mw(func(ctx context.Context, c *endpoint.Call) (any, error) { return inner(ctx, c) })
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c()) }), 0, "a call that runs")
	refused := -1.0
	inner = func(ctx context.Context, _ *endpoint.Call) (any, error) {
		refused = testing.AllocsPerRun(1000, func() { _, _ = h(ctx, c()) })
		return reply, nil
	}
	_, err := h(t.Context(), c())
	assert.NoError(t, err)
	assert.Equal(t, refused, 0, "one that is refused")
}

func BenchmarkAdaptiveConcurrency(b *testing.B) {
	h := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{})(instant)
	c := newCall(endpoint.ServerSide)
	for b.Loop() {
		_, _ = h(context.Background(), c)
	}
}
