package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// counted adds, and counts how often.
func counted(n *atomic.Int64, control ...string) endpoint.Unary[*addRequest, *addResponse] {
	return func(ctx context.Context, r *addRequest) (*addResponse, error) {
		n.Add(1)
		h := &endpoint.FromContext(ctx).Reply
		h.Set("tag", "a")
		for _, v := range control {
			h.Add("cache-control", v)
		}
		return add(ctx, r)
	}
}

func TestCache(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var ran atomic.Int64
		tag := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				reply, err := next(ctx, c)
				c.Reply.Add("tag", "mine") // each has its own
				return reply, err
			}
		}
		call := place(t, side, endpoint.Chain(tag, middleware.Cache(middleware.CachePolicy{})), counted(&ran))
		ask := func(a int) *endpoint.Report {
			ctx, report := endpoint.Observe(t.Context())
			resp, err := call(ctx, &addRequest{A: a, B: 2})
			assert.NoError(t, err)
			assert.Equal(t, resp.Sum, a+2)
			resp.Sum = 99 // each has its own
			assert.Equal(t, report.Reply.Values("tag")[0], "a")
			assert.Equal(t, report.ReplySize, len(`{"Sum":2}`))
			return report
		}
		first := ask(0)
		assert.Equal(t, first.Attempts, 1)
		for range 3 {
			hit := ask(0)
			if side == endpoint.ClientSide {
				assert.Equal(t, hit.Attempts, 0)
				assert.Equal(t, hit.Instance, "", "nobody was asked")
			} else {
				assert.Equal(t, hit.Instance, first.Instance)
			}
		}
		assert.Equal(t, ran.Load(), 1)
		ask(1)
		assert.Equal(t, ran.Load(), 2)
		time.Sleep(time.Second - 1)
		ask(0)
		assert.Equal(t, ran.Load(), 2)
		time.Sleep(time.Nanosecond)
		ask(0)
		assert.Equal(t, ran.Load(), 3, "a second is over")
	})
}

// All that asks at once for what is not kept, or not any more, runs once.
func TestCacheStampede(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var s slow
		call := place(t, side, middleware.Cache(middleware.CachePolicy{TTL: time.Minute}), s.add)
		for round := range 3 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					resp, err := call(t.Context(), &addRequest{A: 1})
					assert.NoError(t, err)
					assert.Equal(t, resp.Sum, 1)
				})
			}
			wg.Wait()
			assert.Equal(t, s.began.Load(), int64(round+1))
			time.Sleep(time.Minute)
		}
	})
}

func TestCacheControl(t *testing.T) {
	for _, tc := range []struct {
		control []string
		ttl     time.Duration
	}{
		{nil, time.Minute},
		{[]string{"no-store"}, 0},
		{[]string{"public , No-Cache"}, 0},
		{[]string{`private="Set-Cookie"`}, 0},
		{[]string{"max-age=5"}, 5 * time.Second},
		{[]string{"public", "MAX-AGE = \"5\" ,s-maxage=3"}, 3 * time.Second},
		{[]string{"max-age=3600"}, time.Minute},
		{[]string{"max-age=0"}, 0},
		{[]string{"max-age"}, 0},
		{[]string{"max-age=-1"}, 0},
		{[]string{"max-age=soon"}, 0},
		{[]string{"max-age=99999999999999999999999"}, time.Minute},
		{[]string{"max-age=9223372036854775807"}, time.Minute},
		{[]string{"no-transform, ,="}, time.Minute},
	} {
		t.Run(strings.Join(tc.control, ";"), func(t *testing.T) {
			bothSides(t, func(t *testing.T, side endpoint.Side) {
				t.Helper()
				var ran atomic.Int64
				call := place(t, side, middleware.Cache(middleware.CachePolicy{TTL: time.Minute, Report: func(name, _ string, v float64) {
					if name == "cache_bytes" {
						assert.Equal(t, v > 0, tc.ttl > 0, "no room for what is not kept")
					}
				}}), counted(&ran, tc.control...))
				ask := func() {
					_, err := call(t.Context(), &addRequest{})
					assert.NoError(t, err)
				}
				ask()
				if tc.ttl > 0 {
					time.Sleep(tc.ttl - 1)
					ask()
					assert.Equal(t, ran.Load(), 1)
					time.Sleep(time.Nanosecond)
				}
				ask()
				assert.Equal(t, ran.Load(), 2)
			})
		})
	}
}

func TestCacheTellsApart(t *testing.T) {
	tenant := func(_ context.Context, c *endpoint.Call) string { return c.Header.Get("tenant") }
	for name, tc := range map[string]struct {
		policy middleware.CachePolicy
		a, b   []string
		ran    int64
	}{
		"all headers by default":  {a: []string{"token", "x"}, b: []string{"token", "y"}, ran: 2},
		"those named":             {policy: middleware.CachePolicy{Vary: []string{"TENANT", "lang"}}, a: []string{"Tenant", "x", "id", "1"}, b: []string{"tenant", "x", "id", "2"}, ran: 1},
		"those named, and differ": {policy: middleware.CachePolicy{Vary: []string{"tenant"}}, a: []string{"tenant", "x"}, b: []string{"tenant", "y"}, ran: 2},
		"none":                    {policy: middleware.CachePolicy{Vary: []string{}}, a: []string{"tenant", "x"}, ran: 1},
		"a key":                   {policy: middleware.CachePolicy{Key: tenant}, a: []string{"tenant", "x", "id", "1"}, b: []string{"tenant", "x"}, ran: 1},
		"another key":             {policy: middleware.CachePolicy{Key: tenant}, a: []string{"tenant", "x"}, b: []string{"tenant", "y"}, ran: 2},
		"no key":                  {policy: middleware.CachePolicy{Key: tenant}, ran: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var ran atomic.Int64
			call := place(t, endpoint.ServerSide, middleware.Cache(tc.policy), counted(&ran))
			for _, kv := range [][]string{tc.a, tc.b} {
				_, err := call(endpoint.WithHeader(t.Context(), kv...), &addRequest{})
				assert.NoError(t, err)
			}
			assert.Equal(t, ran.Load(), tc.ran)
		})
	}
}

// What is kept of one caller is not shown to another, which may be one of another bus.
func TestCacheKeepsCallersApart(t *testing.T) {
	cache := middleware.Cache(middleware.CachePolicy{})
	for i := range 2 {
		m := endpoint.NewMux()
		serve(t, m, "svc.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return &addResponse{Sum: i}, nil }))
		resp, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.ReadOnly(), cache)(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, i)
	}
}

// Neither writes, streams, errors, nor what is too large.
func TestCacheKeepsNot(t *testing.T) {
	var ran atomic.Int64
	again := func(t *testing.T, call endpoint.Unary[*addRequest, *addResponse], want error) {
		t.Helper()
		ran.Store(0)
		for range 2 {
			_, err := call(t.Context(), &addRequest{})
			assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(want))
		}
		assert.Equal(t, ran.Load(), 2)
	}
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(counted(&ran)))
	again(t, endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.Idempotent(), middleware.Cache(middleware.CachePolicy{})), nil)
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		again(t, place(t, side, middleware.Cache(middleware.CachePolicy{}), func(context.Context, *addRequest) (*addResponse, error) {
			ran.Add(1)
			return nil, endpoint.NotFound.New("none")
		}), endpoint.NotFound)
		again(t, place(t, side, middleware.Cache(middleware.CachePolicy{MaxEntry: 8}), counted(&ran)), nil)
		again(t, place(t, side, middleware.Cache(middleware.CachePolicy{MaxBytes: 300, MaxEntry: 300}), counted(&ran)), nil)
	}
	many := endpoint.ServerStreamCaller[*addRequest, *addResponse](transport(func(_ context.Context, c *endpoint.Call) (any, error) {
		ran.Add(1)
		return nil, c.Send(&addResponse{})
	}), "svc.add", endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{}))
	ran.Store(0)
	for range 2 {
		for range many(t.Context(), &addRequest{}) {
		}
	}
	assert.Equal(t, ran.Load(), 2)
}

func TestCacheFaults(t *testing.T) {
	all := middleware.Cache(middleware.CachePolicy{
		TTL: -1, MaxBytes: -1, MaxEntry: -1, Vary: []string{"a"},
		Key: func(context.Context, *endpoint.Call) string { return "" },
	})
	_, err := caller(ok, all)(t.Context(), &addRequest{})
	assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
	assert.Contains(t, err.Error(), "middleware.Cache: ", "TTL is negative", "MaxBytes is negative", "MaxEntry is negative", "Vary does nothing")
	_, err = caller(ok, middleware.Cache(middleware.CachePolicy{MaxBytes: 100, MaxEntry: 101}))(t.Context(), &addRequest{})
	assert.Contains(t, err.Error(), "MaxEntry 101 is more than MaxBytes 100")
	_, err = caller(ok, middleware.Cache(middleware.CachePolicy{MaxEntry: 1 << 30}))(t.Context(), &addRequest{})
	assert.NoError(t, err)
}

func TestCacheReport(t *testing.T) {
	var told []string
	cache := middleware.Cache(middleware.CachePolicy{Report: func(name, subject string, v float64) {
		if name == "cache_bytes" {
			assert.Equal(t, subject, "")
			assert.True(t, v > 0)
			v = 1
		} else {
			assert.Equal(t, subject, "svc.add")
		}
		told = append(told, fmt.Sprintf("%s %.2f", name, v))
	}})
	call := caller(ok, endpoint.ReadOnly(), cache)
	for range 4 {
		_, _ = call(t.Context(), &addRequest{})
	}
	assert.Equal(t, told, []string{"cache_hit_ratio 0.00", "cache_bytes 1.00", "cache_hit_ratio 0.50", "cache_hit_ratio 0.67", "cache_hit_ratio 0.75"})
	told = nil
	for range 1000 {
		_, _ = call(t.Context(), &addRequest{})
	}
	assert.Equal(t, told[len(told)-1], "cache_hit_ratio 1.00")
	for i := range 100 {
		_, _ = call(t.Context(), &addRequest{A: 1 + i})
	}
	assert.Equal(t, told[len(told)-2], "cache_hit_ratio 0.37", "what is long ago does not count")
}

// What is out of date makes room when it is asked for, whatever comes of that.
func TestCacheOutOfDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bytes := 0.
		var err error
		call := caller(func(context.Context, *endpoint.Call) (any, error) { return reply, err },
			endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{Report: func(name, _ string, v float64) {
				if name == "cache_bytes" {
					bytes = v
				}
			}}))
		_, _ = call(t.Context(), &addRequest{})
		assert.True(t, bytes > 0)
		time.Sleep(time.Second)
		err = errDraining
		_, _ = call(t.Context(), &addRequest{})
		assert.Equal(t, bytes, 0)
	})
}

// Two flights of the same identity, of which the first was left by all and replied nevertheless: there is one entry.
func TestCacheLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var n atomic.Int64
		bytes := map[float64]bool{}
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
			return after(time.Duration(4-n.Add(1))*time.Second, nil)(ctx, c)
		}, endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{TTL: time.Hour, Report: func(name, _ string, v float64) {
			mu.Lock()
			defer mu.Unlock()
			bytes[v] = bytes[v] || name == "cache_bytes"
		}}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = call(ctx, &addRequest{}) })
		time.Sleep(time.Second)
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		wg.Wait()
		assert.Equal(t, n.Load(), 2)
		assert.Equal(t, len(bytes), 2, "the size of one entry, and the ratio 0")
	})
}

// Not in a bubble: hits, misses, evictions and leavers at once.
func TestCacheConcurrent(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		t.Run(side.String(), func(t *testing.T) {
			cache := middleware.Cache(middleware.CachePolicy{MaxBytes: 4000, TTL: time.Millisecond, Report: func(name, _ string, v float64) {
				if name == "cache_bytes" && v > 4000 {
					t.Errorf("%v bytes", v)
				}
			}})
			call := place(t, side, cache, add)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for j := range 300 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(50+(i*j)%7*100)*time.Microsecond)
						resp, err := call(ctx, &addRequest{A: j % 11})
						if cancel(); err == nil {
							assert.Equal(t, resp.Sum, j%11)
							resp.Sum = -1
						} else if !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
