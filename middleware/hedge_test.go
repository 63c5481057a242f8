package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// slowly answers after what its plan says for each attempt, unless the context ends first.
type slowly struct {
	mu       sync.Mutex
	plan     func(c *endpoint.Call) (time.Duration, error)
	calls    int // first attempts
	further  []time.Time
	canceled []error // the causes
}

const usual = 10 * time.Millisecond

func (s *slowly) handle(ctx context.Context, c *endpoint.Call) (any, error) {
	s.mu.Lock()
	took, err := usual, error(nil)
	if s.plan != nil {
		took, err = s.plan(c)
	}
	if c.Attempt == 0 {
		s.calls++
	} else {
		s.further = append(s.further, time.Now())
	}
	s.mu.Unlock()
	deadline, done := endpoint.Wait(ctx) // as a transport does
	var up <-chan time.Time
	if !deadline.IsZero() {
		up = time.After(time.Until(deadline))
	}
	select {
	case <-time.After(took):
		if err != nil {
			return nil, err
		}
		return ok(ctx, c)
	case <-up:
		return nil, endpoint.ContextError(ctx)
	case <-done:
		s.mu.Lock()
		s.canceled = append(s.canceled, context.Cause(ctx))
		s.mu.Unlock()
		return nil, endpoint.ContextError(ctx)
	}
}

// train makes calls that take the usual time, so that hedging may begin.
func train(t *testing.T, call endpoint.Unary[*addRequest, *addResponse]) {
	t.Helper()
	for range 600 {
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
	}
}

// generous hedges a tenth of the calls: less to wait for in tests.
var generous = middleware.HedgePolicy{ExtraLoad: 0.1}

// TestHedgeCutsTheTail: of 10,000 calls one in 200 meets a pause of a second, anywhere.
func TestHedgeCutsTheTail(t *testing.T) {
	run := func(opts ...endpoint.Option) (p999 time.Duration, extra int) {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			s := &slowly{plan: func(*endpoint.Call) (time.Duration, error) {
				if n++; n%200 == 0 {
					return time.Second, nil
				}
				return usual + time.Duration(n%97)*10*time.Microsecond, nil
			}}
			call := caller(s.handle, opts...)
			var took []time.Duration
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 10_000 {
				wg.Go(func() {
					start := time.Now()
					_, err := call(within(t, time.Minute), &addRequest{})
					assert.NoError(t, err)
					mu.Lock()
					defer mu.Unlock()
					took = append(took, time.Since(start))
				})
				time.Sleep(2 * time.Millisecond)
			}
			wg.Wait()
			slices.Sort(took[1000:])
			p999, extra = took[1000:][9000*999/1000], len(s.further)
			for _, cause := range s.canceled {
				e, _ := errors.AsType[*endpoint.Error](cause)
				assert.Equal(t, e.Reason(), endpoint.ReasonHedgeLost)
				assert.Equal(t, e.Code, endpoint.Canceled)
			}
		})
		return p999, extra
	}
	p999, extra := run(endpoint.Idempotent())
	assert.Equal(t, p999, time.Second, "without")
	assert.Equal(t, extra, 0)
	p999, extra = run(endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{}))
	assert.True(t, p999 < 25*time.Millisecond, p999.String())
	assert.True(t, extra > 40 && extra <= 100, fmt.Sprint(extra, " at most 1 % of 10,000"))
}

// TestHedgeExtraLoad: whatever happens to the latencies, there are never more second attempts than promised, in any window.
func TestHedgeExtraLoad(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		share := rapid.SampledFrom([]float64{0.01, 0.05, 0.3}).Draw(rt, "share")
		regimes := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [2]int {
			return [2]int{rapid.IntRange(1, 300).Draw(rt, "ms"), rapid.IntRange(1, 20).Draw(rt, "gap")}
		}), 1, 5).Draw(rt, "regimes")
		seed := rapid.IntRange(1, 1000).Draw(rt, "seed")
		var calls, further []time.Time
		synctest.Test(t, func(t *testing.T) {
			n, most := seed, 1
			s := &slowly{plan: func(c *endpoint.Call) (time.Duration, error) {
				if c.Attempt == 0 {
					calls = append(calls, time.Now())
				}
				n = n * 7919 % 100_003
				return time.Duration(1+n%most) * time.Millisecond, nil
			}}
			call := caller(s.handle, endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{ExtraLoad: share}))
			var wg sync.WaitGroup
			for _, r := range regimes {
				s.mu.Lock()
				most = r[0]
				s.mu.Unlock()
				for range 250 {
					wg.Go(func() { _, _ = call(t.Context(), &addRequest{}) })
					time.Sleep(time.Duration(r[1]) * time.Millisecond)
				}
			}
			wg.Wait()
			further = s.further
		})
		for _, end := range further {
			if n, most := between(further, end, 10*time.Second), share*float64(between(calls, end, 10*time.Second)); float64(n) > most+1e-9 {
				rt.Fatalf("%d second attempts, want at most %v", n, most)
			}
		}
	})
}

func TestHedgeOnlyWhatMayBe(t *testing.T) {
	spent := generous
	spent.Budget = middleware.NewBudget(middleware.BudgetPolicy{Ratio: -1, PerSecond: -1})
	for _, tc := range []struct {
		name   string
		policy middleware.HedgePolicy
		opts   []endpoint.Option
		ctx    func(context.Context) context.Context
		hedged bool
	}{
		{"idempotent", generous, []endpoint.Option{endpoint.Idempotent()}, nil, true},
		{"read only", generous, []endpoint.Option{endpoint.ReadOnly()}, nil, true},
		{"not idempotent", generous, nil, nil, false},
		{"the budget is used up", spent, []endpoint.Option{endpoint.Idempotent()}, nil, false},
		{"directed", generous, []endpoint.Option{endpoint.Idempotent()}, func(ctx context.Context) context.Context {
			return endpoint.WithInstance(ctx, "i-1")
		}, false},
		{"a long least delay", middleware.HedgePolicy{ExtraLoad: 0.1, MinDelay: 2 * time.Second}, []endpoint.Option{endpoint.Idempotent()}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowly{}
				call := caller(s.handle, append(tc.opts, middleware.Hedge(tc.policy))...)
				ctx := t.Context()
				if tc.ctx != nil {
					ctx = tc.ctx(ctx)
				}
				for range 600 {
					_, err := call(ctx, &addRequest{})
					assert.NoError(t, err)
				}
				s.plan = func(c *endpoint.Call) (time.Duration, error) {
					if c.Attempt == 0 {
						return time.Second, nil
					}
					return usual, nil
				}
				start := time.Now()
				_, err := call(ctx, &addRequest{})
				assert.NoError(t, err)
				assert.Equal(t, len(s.further) == 1, tc.hedged)
				assert.Equal(t, time.Since(start) < 25*time.Millisecond, tc.hedged)
			})
		})
	}
}

func TestHedgeNotBeforeItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{plan: func(c *endpoint.Call) (time.Duration, error) { return time.Duration(1+c.Attempt) * usual, nil }}
		n := 0
		s.plan = func(*endpoint.Call) (time.Duration, error) {
			n++
			return time.Duration(n) * time.Millisecond, nil // each slower than all before
		}
		call := caller(s.handle, endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{ExtraLoad: 0.01}))
		for range 200 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, len(s.further), 0)
	})
}

func TestHedgeOnTheServerPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := endpoint.NewMux()
		n := 0
		slow := func(ctx context.Context, r *addRequest) (*addResponse, error) {
			if n++; n > 600 {
				time.Sleep(time.Second)
			}
			return add(ctx, r)
		}
		hedge := middleware.Hedge(generous)
		serve(t, mux, "svc.add", endpoint.New(slow, endpoint.Idempotent(), hedge))
		call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
		for range 601 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, n, 601)
	})
}

// TestHedgeInsideRetry: by hand the outermost takes charge. The stack of both hedges each attempt of the Retry.
func TestHedgeInsideRetry(t *testing.T) {
	for _, tc := range []struct {
		name     string
		mw       endpoint.Middleware
		attempts int
		reply    bool
	}{
		{"Retry, Hedge", endpoint.Chain(middleware.Retry(middleware.RetryPolicy{Budget: plenty()}), middleware.Hedge(generous)), 2, true},
		{"Hedge, Retry", endpoint.Chain(middleware.Hedge(generous), middleware.Retry(middleware.RetryPolicy{Budget: plenty()})), 1, false},
		{"both", middleware.RetryHedge(middleware.RetryPolicy{Budget: plenty()}, generous), 3, true},
		{"both, in a Retry", endpoint.Chain(
			middleware.Retry(middleware.RetryPolicy{Budget: plenty(), Attempts: 1}),
			middleware.RetryHedge(middleware.RetryPolicy{Budget: plenty()}, generous)), 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowly{}
				call := caller(s.handle, endpoint.Idempotent(), tc.mw)
				train(t, call)
				s.further, s.plan = nil, func(c *endpoint.Call) (time.Duration, error) {
					if c.Attempt == 0 {
						return usual, endpoint.Unavailable.New("the first attempt fails") // and none is beside it
					}
					if c.Attempt == 1 {
						return time.Second, nil // the next one hangs
					}
					return usual, nil
				}
				ctx, report := endpoint.Observe(t.Context())
				start := time.Now()
				_, err := call(ctx, &addRequest{})
				assert.Equal(t, err == nil, tc.reply, fmt.Sprint(err))
				assert.Equal(t, report.Attempts, tc.attempts)
				assert.Equal(t, time.Since(start) < 100*time.Millisecond, tc.attempts != 2)
			})
		})
	}
}

// TestHedgeSharesTheBudget: second attempts and retries draw on one budget, and a call is counted in it once.
func TestHedgeSharesTheBudget(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var left []float64
			shared := middleware.NewBudget(middleware.BudgetPolicy{
				Ratio: 0.1, PerSecond: -1, Report: func(_, _ string, value float64) { left = append(left, value) },
			})
			s := &slowly{}
			hedges := generous
			hedges.ExtraLoad = 0.5
			mw := middleware.RetryHedge(middleware.RetryPolicy{Budget: shared}, hedges)
			if own {
				hedges.Budget = shared
				mw = middleware.Hedge(hedges)
			}
			call := caller(s.handle, endpoint.Idempotent(), mw)
			train(t, call)
			s.plan = func(c *endpoint.Call) (time.Duration, error) {
				if c.Attempt == 0 {
					return time.Second, nil
				}
				return usual, nil
			}
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
			assert.Equal(t, left, []float64{601*0.1 - 1}, "of 601 calls a tenth, less the second attempt")
		})
	}
}

// TestHedgeRace goes through how two attempts can end. The first one is slower than usual in any case.
func TestHedgeRace(t *testing.T) {
	const soon, late = 5 * usual, 50 * usual
	notFound := endpoint.NotFound.New("x").WithOutcome(endpoint.Executed)
	limit := endpoint.ResourceExhausted.New("x").WithReason(endpoint.ReasonLocalLimit).WithOutcome(endpoint.NotSent)
	gone := endpoint.Unavailable.New("gone").WithOutcome(endpoint.Executed)
	type end struct {
		after time.Duration
		err   error
	}
	for _, tc := range []struct {
		name          string
		first, second end
		took          time.Duration // 0: not looked at
		wins          int           // the attempt whose reply or error it is
		both          bool          // the error lists both
		lost          int           // how many were canceled
	}{
		{"second replies", end{late, nil}, end{usual, nil}, 0, 1, false, 1},
		{"first replies", end{soon, nil}, end{late, nil}, soon, 0, false, 1},
		{"second answers", end{late, nil}, end{usual, notFound}, 0, 1, false, 1},
		{"first answers", end{soon, notFound}, end{late, nil}, soon, 0, false, 1},
		{"second is refused here", end{late, nil}, end{usual, limit}, late, 0, false, 0},
		{"second finds nobody", end{late, nil}, end{usual, errNobody}, late, 0, false, 0},
		{"second fails, first replies", end{late, nil}, end{usual, gone}, late, 0, false, 0},
		{"first fails, second replies", end{soon, gone}, end{late, nil}, 0, 1, false, 0},
		{"second has a foreign error", end{late, nil}, end{usual, errors.New("x")}, late, 0, false, 0},
		{"both fail", end{soon, gone}, end{late, gone}, 0, 1, true, 0},
		{"both fail, the first came further", end{soon, gone}, end{late, limit}, 0, 0, true, 0},
		{"both fail, the second came further", end{late, errNobody}, end{usual, errDown}, late, 1, true, 0},
		{"both fail with foreign errors", end{soon, errors.New("x")}, end{late, errors.New("y")}, 0, 1, true, 0},
		{"the first fails, an answer follows", end{soon, gone}, end{late, notFound}, 0, 1, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowly{}
				handle := func(ctx context.Context, c *endpoint.Call) (any, error) {
					c.SetInstance(fmt.Sprint("i-", c.Attempt))
					c.Reply.Set("attempt", fmt.Sprint(c.Attempt))
					return s.handle(ctx, c)
				}
				call := caller(handle, endpoint.Idempotent(), middleware.Hedge(generous))
				train(t, call)
				s.plan = func(c *endpoint.Call) (time.Duration, error) {
					if c.Attempt == 0 {
						return tc.first.after, tc.first.err
					}
					return tc.second.after, tc.second.err
				}
				start := time.Now()
				ctx, report := endpoint.Observe(t.Context())
				_, err := call(ctx, &addRequest{})
				if tc.took > 0 {
					assert.Equal(t, time.Since(start), tc.took)
				} else {
					assert.True(t, time.Since(start) < late+2*usual, time.Since(start).String())
				}
				assert.Equal(t, report.Attempts, 2)
				assert.Equal(t, report.Instance, fmt.Sprint("i-", tc.wins))
				assert.Equal(t, report.Reply.Get("attempt"), fmt.Sprint(tc.wins))
				want := []error{tc.first.err, tc.second.err}[tc.wins]
				assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(want))
				assert.Equal(t, endpoint.OutcomeOf(err), endpoint.OutcomeOf(want))
				if want != nil && endpoint.CodeOf(want) == endpoint.Unknown {
					assert.ErrorIs(t, err, want)
				}
				list, ok := errors.AsType[*middleware.RetryError](err)
				assert.Equal(t, ok, tc.both)
				if tc.both {
					assert.Equal(t, list.Total, 2)
					assert.Equal(t, list.Attempts[1].Attempt, tc.wins, "the one that counts is the last")
					assert.True(t, list.Attempts[0].Took > 0 && list.Attempts[0].Instance != "", "known")
				}
				assert.Equal(t, len(s.canceled), tc.lost)
				for _, cause := range s.canceled {
					e, _ := errors.AsType[*endpoint.Error](cause)
					assert.Equal(t, e.Reason(), endpoint.ReasonHedgeLost)
				}
			})
		})
	}
}

// TestHedgeLoserReachesHandler: through a Mux the loser's handler sees the end of its context.
func TestHedgeLoserReachesHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := endpoint.NewMux()
		slow := false
		var stopped, ran atomic.Int64
		serve(t, mux, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			ran.Add(1)
			if slow && endpoint.FromContext(ctx).Attempt == 0 {
				<-ctx.Done()
				stopped.Add(1)
				return nil, ctx.Err()
			}
			time.Sleep(usual)
			return add(ctx, r)
		}))
		call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", endpoint.Idempotent(), middleware.Hedge(generous))
		train(t, call)
		slow = true
		resp, err := call(t.Context(), &addRequest{A: 1, B: 2})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 3)
		synctest.Wait()
		assert.Equal(t, stopped.Load(), 1)
		assert.Equal(t, ran.Load(), 602)
	})
}

// TestHedgeLosersDoNotCount in a Breaker inside.
func TestHedgeLosersDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		h := func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := s.handle(ctx, c)
			if endpoint.CodeOf(err) == endpoint.Canceled { // a service that makes its own of it
				return nil, endpoint.Internal.Wrap(err, "broke off").WithOutcome(endpoint.Executed)
			}
			return reply, err
		}
		call := caller(h, endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{ExtraLoad: 0.5}),
			middleware.Breaker(middleware.BreakerPolicy{Failures: 1, OnStateChange: func(string, middleware.BreakerState, middleware.BreakerState) {
				t.Error("it opened")
			}}))
		train(t, call)
		s.plan = func(c *endpoint.Call) (time.Duration, error) {
			return time.Duration(1-c.Attempt)*time.Second + usual, nil
		}
		for range 20 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, len(s.canceled), 20)
	})
}

// TestHedgeDeadlines: both attempts end with the call's deadline or the attempt's.
func TestHedgeDeadlines(t *testing.T) {
	for _, tc := range []struct {
		name string
		mw   endpoint.Middleware
		took time.Duration
		runs int
	}{
		{"the call's", middleware.Hedge(generous), 9 * time.Second, 2},
		{"a Timeout inside", endpoint.Chain(middleware.Hedge(generous), middleware.Timeout(time.Second)), time.Second, 2},
		{"the attempt's", middleware.RetryHedge(middleware.RetryPolicy{AttemptTimeout: time.Second, Budget: plenty(), Backoff: 1}, generous), 3 * time.Second, 6},
		{"a delay that is longer", middleware.Hedge(middleware.HedgePolicy{ExtraLoad: 0.1, MinDelay: 9 * time.Second}), 9 * time.Second, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowly{}
				call := caller(s.handle, endpoint.Idempotent(), tc.mw)
				train(t, call)
				s.plan = func(*endpoint.Call) (time.Duration, error) { return time.Hour, nil }
				start := time.Now()
				ctx, report := endpoint.Observe(within(t, 9*time.Second))
				_, err := call(ctx, &addRequest{})
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)
				took := time.Since(start)
				assert.True(t, took >= tc.took && took < tc.took+50*time.Millisecond, took.String())
				assert.Equal(t, report.Attempts, tc.runs)
			})
		})
	}
}

func TestHedgeCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		call := caller(s.handle, endpoint.Idempotent(), middleware.Hedge(generous))
		train(t, call)
		s.plan = func(*endpoint.Call) (time.Duration, error) { return time.Hour, nil }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := call(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, time.Since(start), time.Second)
		assert.Equal(t, len(s.canceled), 2)
	})
}

// TestHedgePanics: the first attempt's goes on to the caller and takes the second along; the second's is an error.
func TestHedgePanics(t *testing.T) {
	for _, tc := range []struct {
		name   string
		first  func()
		second func()
		check  func(t *testing.T, reply any, err error, p any)
	}{
		{"first", func() { panic("one") }, nil, func(t *testing.T, _ any, _ error, p any) {
			t.Helper()
			assert.Equal(t, p, any("one"))
		}},
		{"second", nil, func() { panic("two") }, func(t *testing.T, reply any, err error, p any) {
			t.Helper()
			assert.Equal(t, p, nil)
			assert.NoError(t, err)
			assert.True(t, reply != nil, "the first one's reply")
		}},
		{"second ends its goroutine", nil, runtime.Goexit, func(t *testing.T, _ any, err error, _ any) {
			t.Helper()
			assert.NoError(t, err)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowly{}
				bad := false
				var running atomic.Int64
				h := middleware.Hedge(generous)(func(ctx context.Context, c *endpoint.Call) (any, error) {
					running.Add(1)
					defer running.Add(-1)
					if bad && c.Attempt == 0 {
						time.Sleep(time.Second)
						if tc.first != nil {
							tc.first()
						}
						return ok(ctx, c)
					}
					if bad && tc.second != nil {
						tc.second()
					}
					if bad {
						return hang(ctx, c)
					}
					return s.handle(ctx, c)
				})
				spec := endpoint.New(add, endpoint.Idempotent()).Spec()
				run := func() (reply any, err error, p any) { //nolint:staticcheck // the panic is the last word
					defer func() { p = recover() }()
					reply, err = h(t.Context(), endpoint.NewCall(spec, "svc.add", endpoint.ClientSide))
					return reply, err, nil
				}
				for range 600 {
					_, err, _ := run()
					assert.NoError(t, err)
				}
				bad = true
				reply, err, p := run()
				assert.Equal(t, running.Load(), 0, "attempts left behind")
				tc.check(t, reply, err, p)
			})
		})
	}
}

// TestHedgeHeaders: what inner middleware writes to one attempt does not show in the other.
func TestHedgeHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		var mu sync.Mutex
		var seen []string
		stamp := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				c.Header.Add("x-attempt", fmt.Sprint(c.Attempt))
				mu.Lock()
				seen = append(seen, fmt.Sprint(c.Header.Values("x-attempt"), c.Header.Get("kept"), c.Trace()))
				mu.Unlock()
				c.SetTrace("span")
				return next(ctx, c)
			}
		}
		trace := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				c.SetTrace("trace")
				return next(ctx, c)
			}
		}
		call := caller(s.handle, endpoint.Idempotent(), endpoint.With(trace, middleware.Hedge(generous), stamp))
		train(t, call)
		s.plan, seen = func(c *endpoint.Call) (time.Duration, error) {
			return time.Duration(1-c.Attempt)*time.Second + usual, nil
		}, nil
		_, err := call(endpoint.WithHeader(t.Context(), "kept", "y"), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, seen, []string{"[0]ytrace", "[1]ytrace"})
	})
}

// TestHedgeFollowsTheLatencies: when the service becomes slower for all, the delay does too, and when it recovers.
func TestHedgeFollowsTheLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		base := usual
		s.plan = func(c *endpoint.Call) (time.Duration, error) { return base, nil }
		call := caller(s.handle, endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{}))
		delay := func() time.Duration { // of a call that hangs
			n := len(s.further)
			s.plan = func(c *endpoint.Call) (time.Duration, error) {
				return time.Duration(1-c.Attempt)*time.Minute + base, nil
			}
			defer func() { s.plan = func(c *endpoint.Call) (time.Duration, error) { return base, nil } }()
			start := time.Now()
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
			assert.Equal(t, len(s.further), n+1)
			return s.further[n].Sub(start)
		}
		for _, phase := range []time.Duration{7 * usual, usual} {
			base = phase
			var wg sync.WaitGroup
			for range 20_000 {
				wg.Go(func() { _, _ = call(t.Context(), &addRequest{}) })
				time.Sleep(2 * time.Millisecond)
			}
			wg.Wait()
			d := delay()
			assert.True(t, d >= phase && d <= phase*9/8+20*time.Microsecond, d.String())
		}
	})
}

// TestHedgeAtTheSameInstant: a first attempt that ends just when the second would begin; nothing begins after the end.
func TestHedgeAtTheSameInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		over := false
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
			assert.True(t, !over, "the call is over")
			return s.handle(ctx, c)
		}, endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{ExtraLoad: 0.5}))
		train(t, call)
		s.plan = func(c *endpoint.Call) (time.Duration, error) {
			return time.Duration(1-c.Attempt)*time.Second + usual, nil
		}
		start := time.Now()
		_, _ = call(t.Context(), &addRequest{})
		delay := s.further[0].Sub(start)
		s.plan = func(*endpoint.Call) (time.Duration, error) { return delay, nil }
		for range 300 {
			over = false
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
			over = true
			synctest.Wait()
		}
	})
}

func TestHedgeStreamsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := endpoint.NewMux()
		n := 0
		serve(t, mux, "svc.count", endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
			return func(func(*addResponse, error) bool) {
				if n++; n > 600 {
					time.Sleep(time.Second)
				}
			}
		}))
		stream := endpoint.ServerStreamCaller[*addRequest, *addResponse](mux, "svc.count", endpoint.Idempotent(), middleware.Hedge(generous))
		for range 601 {
			for range stream(t.Context(), &addRequest{}) {
				t.Error("an item")
			}
		}
		assert.Equal(t, n, 601)
	})
}

// TestHedgeCountsCallsNotRetries: what a Retry adds gives no right to add more.
func TestHedgeCountsCallsNotRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		call := caller(s.handle, endpoint.Idempotent(), middleware.RetryHedge(
			middleware.RetryPolicy{Backoff: 1, MaxBackoff: 1, Budget: plenty()}, middleware.HedgePolicy{}))
		train(t, call)
		time.Sleep(12 * time.Second) // out of the budget's window
		s.plan = func(*endpoint.Call) (time.Duration, error) { return 0, errDown }
		for range 100 {
			_, _ = call(t.Context(), &addRequest{})
		}
		assert.Equal(t, s.calls, 700)
		s.further, s.plan = nil, func(*endpoint.Call) (time.Duration, error) { return 20 * usual, nil }
		for range 5 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, len(s.further), 1, "of 105 calls")
	})
}

// TestHedgeRefusalsTellNothing of how long the service takes.
func TestHedgeRefusalsTellNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		call := caller(s.handle, endpoint.Idempotent(), middleware.Hedge(generous))
		train(t, call)
		s.plan = func(*endpoint.Call) (time.Duration, error) { return 0, errNobody }
		for range 10_000 {
			_, _ = call(t.Context(), &addRequest{})
		}
		s.plan = nil
		for range 100 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, len(s.further), 0)
	})
}

func TestHedgeConcurrent(t *testing.T) {
	var further atomic.Int64
	call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
		if c.Attempt == 0 && c.Header.Len() > 0 {
			return hang(ctx, c)
		}
		if c.Attempt > 0 {
			further.Add(1)
		}
		c.Reply.Set("a", "b")
		return ok(ctx, c)
	}, endpoint.Idempotent(), middleware.RetryHedge(middleware.RetryPolicy{}, generous))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				ctx := within(t, time.Minute)
				if i > 300 && i%50 == 0 {
					ctx = endpoint.WithHeader(ctx, "hang", "yes")
				}
				_, err := call(ctx, &addRequest{})
				if err != nil {
					t.Errorf("the second attempt replies: %v", err)
				}
			}
		})
	}
	wg.Wait()
	assert.True(t, further.Load() >= 8*3, "those that hang were hedged")
}

func TestHedgeFaults(t *testing.T) {
	_, err := caller(ok, middleware.Hedge(middleware.HedgePolicy{ExtraLoad: -1, MinDelay: -1}))(t.Context(), &addRequest{})
	assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
	assert.Contains(t, err.Error(), "middleware.Hedge: ", "ExtraLoad is negative", "MinDelay is negative")
	for _, share := range []float64{0.51, math.NaN(), math.Inf(1)} {
		_, err := caller(ok, middleware.Hedge(middleware.HedgePolicy{ExtraLoad: share}))(t.Context(), &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
	}
	_, err = caller(ok, middleware.RetryHedge(middleware.RetryPolicy{Attempts: -1}, middleware.HedgePolicy{MinDelay: -1}))(t.Context(), &addRequest{})
	assert.Contains(t, err.Error(), "Retry: Attempts is negative", "Hedge: MinDelay is negative")
}
