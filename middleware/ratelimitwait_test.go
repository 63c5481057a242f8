package middleware_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestRateLimitWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(ok, middleware.RateLimitWait(rate.NewLimiter(10, 2)))
		start := time.Now()
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, err := call(t.Context(), &addRequest{})
				assert.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(start))
			})
		}
		wg.Wait()
		slices.Sort(took)
		for i, want := range []int{0, 0, 100, 200, 300} {
			assert.Equal(t, took[i], time.Duration(want)*time.Millisecond)
		}
	})
}

// TestRateLimitWaitDeadline: who can't get a turn in time hears it at once, and takes nobody's turn.
func TestRateLimitWaitDeadline(t *testing.T) {
	for side, want := range map[endpoint.Side]struct {
		reason  string
		outcome endpoint.Outcome
	}{
		endpoint.ClientSide: {endpoint.ReasonLocalLimit, endpoint.NotSent},
		endpoint.ServerSide: {endpoint.ReasonRateLimited, endpoint.NotExecuted},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := middleware.RateLimitWait(rate.NewLimiter(1, 1))(instant)
			_, err := h(t.Context(), newCall(side))
			assert.NoError(t, err)
			start := time.Now()
			for _, left := range []time.Duration{time.Millisecond, 999 * time.Millisecond, time.Second} {
				_, err = h(within(t, left), newCall(side))
				e, _ := errors.AsType[*endpoint.Error](err)
				assert.Equal(t, e.Code, endpoint.ResourceExhausted)
				assert.Equal(t, e.Reason(), want.reason)
				assert.Equal(t, e.Outcome(), want.outcome)
				assert.Equal(t, e.RetryAfter, time.Second)
			}
			assert.Equal(t, time.Since(start), 0)
			_, err = h(within(t, time.Second+1), newCall(side))
			assert.NoError(t, err)
			assert.Equal(t, time.Since(start), time.Second)
		})
	}
}

// TestRateLimitWaitCanceled: who leaves gives the turn back, to the one that comes next.
func TestRateLimitWaitCanceled(t *testing.T) {
	for side, outcome := range map[endpoint.Side]endpoint.Outcome{
		endpoint.ClientSide: endpoint.NotSent, endpoint.ServerSide: endpoint.NotExecuted,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := middleware.RateLimitWait(rate.NewLimiter(1, 1))(instant)
			start := time.Now()
			_, err := h(t.Context(), newCall(side))
			assert.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			_, err = h(ctx, newCall(side))
			assert.Equal(t, time.Since(start), 100*time.Millisecond)
			assert.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, endpoint.CodeOf(err), endpoint.Canceled)
			assert.Equal(t, endpoint.OutcomeOf(err), outcome)
			_, err = h(t.Context(), newCall(side))
			assert.NoError(t, err)
			assert.Equal(t, time.Since(start), time.Second, "the turn of the one that left")
		})
	}
}

// earlyEnd is a context that ends as by a deadline that it does not tell.
type earlyEnd struct{ context.Context }

func (earlyEnd) Deadline() (time.Time, bool) { return time.Time{}, false }

func TestRateLimitWaitDeadlineWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middleware.RateLimitWait(rate.NewLimiter(1, 1))(instant)
		_, _ = h(t.Context(), newCall(endpoint.ClientSide))
		start := time.Now()
		_, err := h(earlyEnd{within(t, 300*time.Millisecond)}, newCall(endpoint.ClientSide))
		assert.Equal(t, time.Since(start), 300*time.Millisecond)
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, e.Reason(), endpoint.ReasonExpired)
		assert.Equal(t, e.Outcome(), endpoint.NotSent)
	})
}

// TestRateLimitWaitOnTheMux: through a caller with its lazy context, and a handler with the caller's deadline.
func TestRateLimitWaitOnTheMux(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		synctest.Test(t, func(t *testing.T) {
			m := endpoint.NewMux()
			limit := middleware.RateLimitWait(rate.NewLimiter(1, 1))
			if side == "server" {
				serve(t, m, "svc.add", endpoint.New(add, endpoint.OnServer(limit)))
			} else {
				m.Use(endpoint.OnClient(limit))
				serve(t, m, "svc.add", endpoint.New(add))
			}
			call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
			start := time.Now()
			for i := range 3 {
				_, err := call(t.Context(), &addRequest{})
				assert.NoError(t, err)
				assert.Equal(t, time.Since(start), time.Duration(i)*time.Second)
			}
			_, err := call(within(t, 500*time.Millisecond), &addRequest{})
			assert.ErrorIs(t, err, endpoint.ResourceExhausted)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			_, err = call(ctx, &addRequest{})
			assert.ErrorIs(t, err, context.Canceled)
			synctest.Wait()
			_, err = call(t.Context(), &addRequest{})
			assert.NoError(t, err)
			assert.Equal(t, time.Since(start), 3*time.Second, "what was given back is there")
		})
	}
}

// doorman has no tokens, but says when to ask again.
type doorman struct {
	opens time.Time
	wait  time.Duration
	asked int
}

func (d *doorman) Allow() bool {
	d.asked++
	return !time.Now().Before(d.opens)
}

func (d *doorman) RetryAfter() time.Duration { return d.wait }

func TestRateLimitWaitPolls(t *testing.T) {
	for _, tc := range []struct {
		name         string
		wait         time.Duration
		asked        int
		code         endpoint.Code
		advice, took time.Duration
	}{
		{"as it says", 300 * time.Millisecond, 5, endpoint.OK, 0, 1200 * time.Millisecond},
		{"not all the time", 1, 1001, endpoint.OK, 0, time.Second},
		{"it does not say", 0, 1, endpoint.ResourceExhausted, 0, 0},
		{"never", -1, 1, endpoint.ResourceExhausted, -1, 0},
		{"too late", time.Hour, 1, endpoint.ResourceExhausted, time.Hour, 0},
		{"too late in the end", 900 * time.Millisecond, 2, endpoint.ResourceExhausted, 900 * time.Millisecond, 900 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			d := &doorman{opens: start.Add(time.Second), wait: tc.wait}
			_, err := caller(ok, middleware.RateLimitWait(d))(within(t, 1500*time.Millisecond), &addRequest{})
			assert.Equal(t, endpoint.CodeOf(err), tc.code, tc.name)
			assert.Equal(t, d.asked, tc.asked, tc.name)
			assert.Equal(t, time.Since(start), tc.took, tc.name)
			if e, ok := errors.AsType[*endpoint.Error](err); ok {
				assert.Equal(t, e.RetryAfter, tc.advice, tc.name)
				assert.Equal(t, e.Outcome(), endpoint.NotSent, tc.name)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		d := &doorman{opens: time.Now().Add(time.Second), wait: 300 * time.Millisecond}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err := caller(ok, middleware.RateLimitWait(d))(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
	})
}

// reserving only reserves: nothing tells beforehand how long a turn will take.
type reserving struct{ l *rate.Limiter }

func (r reserving) Allow() bool { return r.l.Allow() }

func (r reserving) ReserveN(now time.Time, n int) *rate.Reservation { return r.l.ReserveN(now, n) }

func TestRateLimitWaitReserves(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limit  rate.Limit
		burst  int
		code   endpoint.Code
		advice time.Duration
	}{
		{"in time", 1, 1, endpoint.OK, 0},
		{"too late", 0.1, 1, endpoint.ResourceExhausted, 10 * time.Second},
		{"no rate", 0, 1, endpoint.ResourceExhausted, 0},
		{"no burst", 1, 0, endpoint.ResourceExhausted, 0},
		{"a rate next to nothing", 1e-300, 1, endpoint.ResourceExhausted, 0},
	} {
		for _, plain := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				bucket := rate.NewLimiter(tc.limit, tc.burst)
				bucket.Allow()
				before := bucket.Tokens()
				var l middleware.Limiter = reserving{bucket}
				if plain {
					l = bucket
				}
				_, err := caller(ok, middleware.RateLimitWait(l))(within(t, 2*time.Second), &addRequest{})
				assert.Equal(t, endpoint.CodeOf(err), tc.code, tc.name)
				if e, ok := errors.AsType[*endpoint.Error](err); ok {
					assert.Equal(t, e.RetryAfter, tc.advice, tc.name)
					assert.Equal(t, bucket.Tokens(), before, tc.name, "given back")
				}
			})
		}
	}
}

func TestRateLimitWaitFaults(t *testing.T) {
	for _, l := range []middleware.Limiter{nil, (*rate.Limiter)(nil), limiter{}} {
		_, err := caller(ok, middleware.RateLimitWait(l))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.InvalidArgument)
		assert.Contains(t, err.Error(), "RateLimitWait")
	}
}

// TestRateLimitWaitModel: whoever calls when, the calls that pass keep the rate, each comes before its deadline, and each
// that is refused or gives up has an answer by it.
func TestRateLimitWaitModel(t *testing.T) {
	type visitor struct{ at, timeout, leaves time.Duration }
	ms := func(rt *rapid.T, least int, what string) time.Duration {
		return time.Duration(rapid.IntRange(least, 3000).Draw(rt, what)) * time.Millisecond
	}
	rapid.Check(t, func(rt *rapid.T) {
		burst := rapid.IntRange(1, 3).Draw(rt, "burst")
		visitors := rapid.SliceOf(rapid.Custom(func(rt *rapid.T) visitor {
			return visitor{ms(rt, 0, "at"), ms(rt, 1, "timeout"), ms(rt, 1, "leaves")}
		})).Draw(rt, "visitors")
		synctest.Test(t, func(t *testing.T) {
			const perSecond = 5
			var mu sync.Mutex
			var passed []time.Time
			h := func(ctx context.Context, c *endpoint.Call) (any, error) {
				mu.Lock()
				defer mu.Unlock()
				passed = append(passed, time.Now())
				return ok(ctx, c)
			}
			call := caller(h, middleware.RateLimitWait(rate.NewLimiter(perSecond, burst)))
			var wg sync.WaitGroup
			for _, v := range visitors {
				wg.Go(func() {
					time.Sleep(v.at)
					ctx, cancel := context.WithCancel(within(t, v.timeout))
					defer cancel()
					defer time.AfterFunc(v.leaves, cancel).Stop()
					start := time.Now()
					_, err := call(ctx, &addRequest{})
					if took := time.Since(start); took > min(v.timeout, v.leaves) {
						t.Errorf("%+v took %v", v, took)
					}
					if err != nil && endpoint.OutcomeOf(err) != endpoint.NotSent {
						t.Errorf("%+v: %v, %v", v, err, endpoint.OutcomeOf(err))
					}
				})
			}
			wg.Wait()
			for i := burst; i < len(passed); i++ {
				if gap := passed[i].Sub(passed[i-burst]); gap < time.Second/perSecond-time.Microsecond {
					t.Errorf("%d calls within %v", burst+1, gap)
				}
			}
		})
	})
}

func TestAllocsRateLimitWait(t *testing.T) {
	assert.True(t, extra(t, wait, middleware.RateLimitWait(rate.NewLimiter(rate.Inf, 0))) <= 0, "a call that need not wait")
	l := rate.NewLimiter(rate.Every(time.Hour), 1)
	l.Allow()
	h := middleware.RateLimitWait(l)(instant)
	c := newCall(endpoint.ClientSide)
	ctx := within(t, time.Minute)
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(ctx, c) }), 1, "the error")
}
