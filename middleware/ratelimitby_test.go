package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func tenant(_ context.Context, c *endpoint.Call) string { return c.Header.Get("tenant") }

// keyed is a handler behind RateLimitBy, and a way to call it with a key of one's choice.
func keyed(p middleware.RatePolicy) func(key string) error {
	var now atomic.Pointer[string]
	key := func(context.Context, *endpoint.Call) string { return *now.Load() }
	h := middleware.RateLimitBy(key, p)(instant)
	c := newCall(endpoint.ServerSide)
	return func(key string) error {
		now.Store(&key)
		_, err := h(context.Background(), c)
		return err
	}
}

func TestRateLimitByServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		serve(t, m, "svc.add", endpoint.New(add, middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 10, Burst: 2})))
		call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.Retry(middleware.RetryPolicy{}))
		a, b := endpoint.WithHeader(t.Context(), "Tenant", "a"), endpoint.WithHeader(t.Context(), "Tenant", "b")
		for range 2 {
			_, err := call(a, &addRequest{})
			assert.NoError(t, err)
		}
		_, err := call(a, &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.ResourceExhausted)
		assert.Equal(t, e.Reason(), endpoint.ReasonRateLimited)
		assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
		assert.Equal(t, e.RetryAfter, 100*time.Millisecond)
		_, err = call(b, &addRequest{})
		assert.NoError(t, err, "another tenant")
		time.Sleep(e.RetryAfter)
		_, err = call(a, &addRequest{})
		assert.NoError(t, err, "after RetryAfter")
	})
}

func TestRateLimitByClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(ok, middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 1}))
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		_, err = call(t.Context(), &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.ResourceExhausted, "the empty key is one, too")
		assert.Equal(t, e.Reason(), endpoint.ReasonLocalLimit)
		assert.Equal(t, e.Outcome(), endpoint.NotSent)
		assert.Equal(t, e.RetryAfter, time.Second)
	})
}

func TestRateLimitByRefusesBeforeDecoding(t *testing.T) {
	c := newCall(endpoint.ServerSide)
	c.SetBody([]byte("not json"), "application/json", nil)
	h := middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 1e-3, Burst: 1})(func(_ context.Context, c *endpoint.Call) (any, error) {
		return c.Message()
	})
	_, err := h(t.Context(), c)
	assert.ErrorIs(t, err, endpoint.InvalidArgument, "the first")
	_, err = h(t.Context(), c)
	assert.ErrorIs(t, err, endpoint.ResourceExhausted)
}

func TestRateLimitByFaults(t *testing.T) {
	bad := middleware.RatePolicy{Limit: -1, Burst: -1, MaxKeys: -1, Idle: -1}
	_, err := caller(ok, middleware.RateLimitBy(nil, bad))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Contains(t, err.Error(), "RateLimitBy", "Limit is negative", "Burst is negative", "MaxKeys is negative", "Idle is negative", "key function is nil")
	for _, tc := range []struct {
		p    middleware.RatePolicy
		want string
	}{
		{middleware.RatePolicy{}, "there is no Limit"},
		{middleware.RatePolicy{Limit: rate.Limit(math.NaN())}, "Limit is not a number"},
		{middleware.RatePolicy{Limit: 1e-9, Burst: 100}, "longer than 292 years"},
		{middleware.RatePolicy{Limit: 5e-324, Burst: 1}, "longer than 292 years"},
	} {
		_, err := caller(ok, middleware.RateLimitBy(tenant, tc.p))(t.Context(), &addRequest{})
		assert.Contains(t, fmt.Sprint(err), tc.want)
	}
	_, err = middleware.RateLimitBy(tenant, middleware.RatePolicy{})(instant)(t.Context(), newCall(endpoint.ServerSide))
	assert.ErrorIs(t, err, endpoint.Internal)
}

func TestRateLimitByDefaults(t *testing.T) {
	for _, tc := range []struct {
		limit rate.Limit
		burst int // 0: none at all
	}{
		{0.01, 1},
		{1, 1},
		{2.5, 3},
		{100, 100},
		{rate.Inf, 0},
		{rate.Limit(math.Inf(1)), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			call := keyed(middleware.RatePolicy{Limit: tc.limit})
			n := 0
			for n < 1000 && call("") == nil {
				n++
			}
			if tc.burst == 0 {
				tc.burst = 1000
			}
			assert.Equal(t, n, tc.burst, fmt.Sprint(tc.limit))
		})
	}
}

// TestRateLimitByPanics: what the user's function does to itself neither lets the call through nor holds up others.
func TestRateLimitByPanics(t *testing.T) {
	key := func(_ context.Context, c *endpoint.Call) string {
		if c.Header.Get("bad") != "" {
			panic("secret")
		}
		return ""
	}
	mw := middleware.RateLimitBy(key, middleware.RatePolicy{Limit: 100})
	for side, outcome := range map[endpoint.Side]endpoint.Outcome{
		endpoint.ServerSide: endpoint.NotExecuted, endpoint.ClientSide: endpoint.NotSent,
	} {
		c := newCall(side)
		c.Header.Set("bad", "1")
		_, err := mw(fail(errors.New("next was called")))(t.Context(), c)
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.Internal)
		assert.Equal(t, e.Reason(), endpoint.ReasonPanic)
		assert.Equal(t, e.Outcome(), outcome)
		assert.Equal(t, e.Message, "", "nothing leaks")
		p, ok := errors.AsType[*endpoint.PanicError](err)
		assert.True(t, ok, "a PanicError")
		assert.Contains(t, string(p.Stack), "ratelimitby_test.go")
		_, err = mw(instant)(t.Context(), newCall(side))
		assert.NoError(t, err, "the next call")
	}
}

// TestRateLimitByForgetsTheOldest: the model is a list in the order of use.
func TestRateLimitByForgetsTheOldest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		room := rapid.IntRange(1, 5).Draw(rt, "room")
		keys := rapid.SliceOf(rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f"})).Draw(rt, "keys")
		synctest.Test(t, func(t *testing.T) {
			call := keyed(middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1, MaxKeys: room})
			var model []string // the newest last
			for _, key := range keys {
				i := slices.Index(model, key)
				if err := call(key); (err == nil) != (i < 0) {
					t.Fatalf("%q with %q known: %v", key, model, err)
				}
				switch {
				case i >= 0:
					model = slices.Delete(model, i, i+1)
				case len(model) == room:
					model = model[1:]
				}
				model = append(model, key)
			}
		})
	})
}

// TestRateLimitByModel: with room for all, what is forgotten makes no difference to a limiter for each key that forgets nothing.
func TestRateLimitByModel(t *testing.T) {
	type step struct {
		key   string
		pause time.Duration
	}
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.SampledFrom([]rate.Limit{0.3, 1, 7}).Draw(rt, "limit")
		burst := rapid.IntRange(1, 4).Draw(rt, "burst")
		steps := rapid.SliceOf(rapid.Custom(func(rt *rapid.T) step {
			return step{
				key:   rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(rt, "key"),
				pause: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 100, 1000, 2000, 20_000}).Draw(rt, "pause")) * time.Millisecond,
			}
		})).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			call := keyed(middleware.RatePolicy{Limit: limit, Burst: burst, MaxKeys: 10})
			model := map[string]*rate.Limiter{}
			for _, s := range steps {
				time.Sleep(s.pause)
				if model[s.key] == nil {
					model[s.key] = rate.NewLimiter(limit, burst)
				}
				want := model[s.key].Allow()
				err := call(s.key)
				if (err == nil) != want {
					t.Fatalf("%+v: %v, the model says %v", s, err, want)
				}
				if e, ok := errors.AsType[*endpoint.Error](err); ok {
					wait := time.Duration((1 - model[s.key].Tokens()) / float64(limit) * float64(time.Second))
					assert.Equal(t, e.RetryAfter, max(wait, time.Millisecond))
				}
			}
		})
	})
}

// heap returns how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestRateLimitByIdle: keys that are silent are forgotten while others call, and so is their memory, but for what their map keeps.
func TestRateLimitByIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 50_000
		before := heap()
		call := keyed(middleware.RatePolicy{Limit: 1, Burst: 10, MaxKeys: 2 * keys})
		for i := range keys {
			assert.NoError(t, call(strconv.Itoa(i)))
		}
		full := heap() - before
		time.Sleep(10*time.Second - 1)
		for range 10 {
			for i := range keys / 2 {
				assert.NoError(t, call(strconv.Itoa(i)), "a bucket that was full again")
			}
		}
		assert.True(t, heap()-before > full*9/10, "nobody is forgotten before Idle")
		time.Sleep(time.Nanosecond)
		for i := range keys {
			_ = call(strconv.Itoa(i % (keys / 2)))
		}
		half := heap() - before
		assert.True(t, half < full*8/10, fmt.Sprintf("half of them are forgotten: %d of %d bytes", half, full))
		time.Sleep(10 * time.Second)
		for i := range keys {
			_ = call(strconv.Itoa(i % 1000))
		}
		rest := heap() - before
		assert.True(t, rest < full/4, fmt.Sprintf("all are forgotten: %d of %d bytes", rest, full))
		runtime.KeepAlive(call)
	})
}

// TestRateLimitByShortIdle: a shorter Idle forgives, exactly when it has passed.
func TestRateLimitByShortIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := keyed(middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1, MaxKeys: 10, Idle: time.Minute})
		for _, key := range []string{"a", "b", "c", "d", "e"} { // more than are forgotten at once
			assert.NoError(t, call(key))
		}
		time.Sleep(time.Minute - 1)
		assert.ErrorIs(t, call("e"), endpoint.ResourceExhausted)
		time.Sleep(time.Nanosecond)
		assert.NoError(t, call("d"))
		assert.ErrorIs(t, call("e"), endpoint.ResourceExhausted, "it called meanwhile")
		time.Sleep(time.Minute)
		assert.NoError(t, call("e"))
	})
}

const million = 1_000_000

// TestRateLimitByMemory: a million keys are remembered, and take less than 200 MB with all there is.
func TestRateLimitByMemory(t *testing.T) {
	before := heap()
	call := keyed(middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1, MaxKeys: million + million/10})
	for i := range million {
		if err := call(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	used := heap() - before
	t.Logf("%d MB", used/1e6)
	assert.True(t, used < 200e6, fmt.Sprintf("%d bytes", used))
	for i := 0; i < million; i += 997 {
		assert.ErrorIs(t, call(strconv.Itoa(i)), endpoint.ResourceExhausted, "a known key")
	}
	runtime.KeepAlive(call)
}

// TestRateLimitByHostileKeys: neither many keys nor long ones cost more than the bound.
func TestRateLimitByHostileKeys(t *testing.T) {
	before := heap()
	call := keyed(middleware.RatePolicy{Limit: 1, MaxKeys: 10_000})
	long := strings.Repeat("x", 8192)
	for i := range 100_000 {
		_ = call(strconv.Itoa(i) + long)
	}
	used := heap() - before
	assert.True(t, used < 4e6, fmt.Sprintf("%d bytes", used))
	runtime.KeepAlive(call)
}

func TestRateLimitByConcurrent(t *testing.T) {
	const workers, keys, burst = 8, 100_000, 3
	mw := middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: burst, MaxKeys: 2 * keys})
	h := mw(instant)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range keys / 50 {
				c := newCall(endpoint.ServerSide)
				c.Header.Set("tenant", strconv.Itoa(i))
				if _, err := h(t.Context(), c); err == nil {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, passed.Load(), burst*keys/50)
}

func TestAllocsRateLimitBy(t *testing.T) {
	mw := middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 1e9})
	assert.True(t, extra(t, wait, mw) <= 0, "a known key costs nothing")
	call := keyed(middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1})
	_ = call("x")
	key := "x"
	assert.True(t, testing.AllocsPerRun(1000, func() { _ = call(key) }) <= 2, "the error, and the test's key")
}

func BenchmarkRateLimitBy(b *testing.B) {
	h := middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 1e9})(instant)
	refused := middleware.RateLimitBy(tenant, middleware.RatePolicy{Limit: 1e-9})(instant)
	for name, h := range map[string]endpoint.Handler{"allowed": h, "refused": refused} {
		b.Run(name, func(b *testing.B) {
			var n atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c := newCall(endpoint.ServerSide)
				c.Header.Set("tenant", strconv.FormatInt(n.Add(1), 10))
				for pb.Next() {
					_, _ = h(context.Background(), c)
				}
			})
		})
	}
}
