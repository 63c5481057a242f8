package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// tiers is a chain of services on a Mux: each calls the next one through a Retry of its own; the last is down.
type tiers struct {
	mux  *endpoint.Mux
	call endpoint.Unary[*addRequest, *addResponse]
	ran  []atomic.Int64 // how often each tier was called
}

func newTiers(t *testing.T, n int, policy func() middleware.RetryPolicy, server ...endpoint.Option) *tiers {
	t.Helper()
	x := &tiers{mux: endpoint.NewMux(), ran: make([]atomic.Int64, n)}
	next := func(context.Context, *addRequest) (*addResponse, error) { return nil, errDown }
	for i := n - 1; i >= 0; i-- {
		subject, handle := fmt.Sprintf("tier%d.add", i), next
		serve(t, x.mux, subject, endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			x.ran[i].Add(1)
			return handle(ctx, r)
		}, server...))
		next = endpoint.Caller[*addRequest, *addResponse](x.mux, subject, endpoint.Idempotent(), middleware.Retry(policy()))
	}
	x.call = next
	return x
}

// load makes calls at a rate for a time, and returns how much more the last tier got than there were calls.
func (x *tiers) load(t *testing.T, rate int, d time.Duration) float64 {
	t.Helper()
	var wg sync.WaitGroup
	calls := int(d.Seconds() * float64(rate))
	for range calls {
		wg.Go(func() {
			_, err := x.call(t.Context(), &addRequest{})
			assert.True(t, err != nil, "an outage")
		})
		time.Sleep(time.Second / time.Duration(rate))
	}
	wg.Wait()
	return float64(x.ran[len(x.ran)-1].Load()) / float64(calls)
}

// TestAmplification: in a total outage, each tier adds a tenth of what it gets, and the floor of 10/s.
func TestAmplification(t *testing.T) {
	const rate, length = 200, 30 * time.Second
	quick := func() middleware.RetryPolicy {
		return middleware.RetryPolicy{Attempts: 3, Backoff: time.Millisecond, MaxBackoff: time.Millisecond}
	}
	noFloor := func() middleware.RetryPolicy {
		p := quick()
		p.Budget = middleware.NewBudget(middleware.BudgetPolicy{PerSecond: -1})
		return p
	}
	// With the floor a tier may use that of one window at once, and then 10 each second.
	floor := (10*length.Seconds() + 100) / (rate * length.Seconds())
	for _, tc := range []struct {
		name        string
		tiers       int
		policy      func() middleware.RetryPolicy
		server      []endpoint.Option
		least, most float64
	}{
		{"one tier", 1, quick, nil, 1.10, 1.10 + floor},
		{"one tier, no floor", 1, noFloor, nil, 1.09, 1.10},
		{"three tiers", 3, quick, []endpoint.Option{middleware.Forward()}, 1.33, (1.10 + floor) * (1.10 + floor) * (1.10 + floor)},
		{"three tiers, no floor", 3, noFloor, []endpoint.Option{middleware.Forward()}, 1.30, 1.331},
		{"three tiers that answer for themselves", 3, noFloor, nil, 1.09, 1.10}, // internal is not retried: only the last Retry acts
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := newTiers(t, tc.tiers, tc.policy, tc.server...).load(t, rate, length)
				t.Logf("%.3f", got)
				assert.True(t, got >= tc.least && got <= tc.most, fmt.Sprintf("%.4f between %.4f and %.4f", got, tc.least, tc.most))
			})
		})
	}
}

// TestAmplificationNobodyThere: an outage in which nobody serves costs one quick retry at most, on the budget.
func TestAmplificationNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		count := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				attempts.Add(1)
				return next(ctx, c)
			}
		}
		call := endpoint.Caller[*addRequest, *addResponse](endpoint.NewMux(), "svc.add", endpoint.With(middleware.Retry(middleware.RetryPolicy{}), count))
		const calls = 15_000
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				_, err := call(t.Context(), &addRequest{})
				assert.Equal(t, reasonOf(err), endpoint.ReasonNoResponders)
			})
			time.Sleep(2 * time.Millisecond)
		}
		wg.Wait()
		got := float64(attempts.Load()) / calls
		assert.True(t, got > 1.10 && got <= 1.10+400./calls, fmt.Sprint(got))
	})
}

// TestAmplificationPolls: WaitForService polls are counted apart. They take nothing from the budget, and their number
// does not depend on how many callers wait.
func TestAmplificationPolls(t *testing.T) {
	for _, callers := range []int{1, 50, 1000} {
		synctest.Test(t, func(t *testing.T) {
			budget := middleware.NewBudget(middleware.BudgetPolicy{Report: func(string, string, float64) { t.Error("the budget was asked") }})
			var first, polls atomic.Int64
			count := func(next endpoint.Handler) endpoint.Handler {
				return func(ctx context.Context, c *endpoint.Call) (any, error) {
					if c.Attempt == 0 {
						first.Add(1)
					} else {
						polls.Add(1)
					}
					return next(ctx, c)
				}
			}
			mux := endpoint.NewMux()
			call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add",
				endpoint.With(middleware.Retry(middleware.RetryPolicy{WaitForService: true, Budget: budget}), count))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					_, err := call(within(t, time.Minute), &addRequest{})
					assert.NoError(t, err)
				})
			}
			time.Sleep(5 * time.Second) // the pauses have grown
			before := polls.Load()
			time.Sleep(25 * time.Second)
			assert.Equal(t, first.Load(), int64(callers))
			assert.Equal(t, polls.Load()-before, 100, "one each 250 ms")
			serve(t, mux, "svc.add", endpoint.New(add))
			wg.Wait()
			assert.True(t, polls.Load() <= before+101+int64(callers), "each waits no longer than for one call of its own")
		})
	}
}

// TestAmplificationHedged: retries and second attempts together stay within what the budget allows.
func TestAmplificationHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowly{}
		budget := middleware.NewBudget(middleware.BudgetPolicy{PerSecond: -1})
		call := caller(s.handle, endpoint.Idempotent(), middleware.RetryHedge(
			middleware.RetryPolicy{Budget: budget, AttemptTimeout: 100 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: time.Millisecond},
			middleware.HedgePolicy{ExtraLoad: 0.05}))
		train(t, call)
		s.mu.Lock()
		n := 0
		s.plan = func(*endpoint.Call) (time.Duration, error) { // everything fails, and some of it hangs
			if n++; n%25 == 0 {
				return time.Hour, nil
			}
			return usual, errDown
		}
		s.mu.Unlock()
		var wg sync.WaitGroup
		for range 15_000 {
			wg.Go(func() { _, _ = call(within(t, time.Second), &addRequest{}) })
			time.Sleep(2 * time.Millisecond)
		}
		wg.Wait()
		got := float64(len(s.further)) / float64(s.calls)
		assert.True(t, got > 0.08 && got <= 0.10, fmt.Sprint(got))
	})
}
