package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// script answers each attempt with the next error, and the last one again and again; nil is success. It keeps when each attempt
// came.
type script struct {
	errs  []error
	at    []time.Time
	calls []*endpoint.Call
	left  []time.Duration // each attempt's time
}

func (s *script) handle(ctx context.Context, c *endpoint.Call) (any, error) {
	s.at, s.calls = append(s.at, time.Now()), append(s.calls, c)
	d, _ := ctx.Deadline()
	s.left = append(s.left, time.Until(d))
	err := s.errs[min(len(s.at), len(s.errs))-1]
	if err == errHang { //nolint:errorlint // identity is meant
		return hang(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return ok(ctx, c)
}

var errHang = errors.New("hang until the context ends")

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func maybe(code endpoint.Code, reason string) *endpoint.Error {
	return code.New("x").WithReason(reason)
}

func TestRetryQuick(t *testing.T) {
	for _, second := range []error{nil, errNobody} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{errs: []error{errNobody, second}}
			_, err := caller(s.handle, middleware.Retry(middleware.RetryPolicy{Attempts: 10}))(within(t, time.Second), &addRequest{})
			assert.Equal(t, len(s.at), 2)
			assert.Equal(t, err == nil, second == nil)
			pause := s.at[1].Sub(s.at[0])
			assert.True(t, pause >= 5*time.Millisecond && pause < 20*time.Millisecond, pause.String())
		})
	}
}

func TestRetryAfterAdvice(t *testing.T) {
	full := endpoint.ResourceExhausted.New("full").WithReason(endpoint.ReasonBacklogFull).WithOutcome(endpoint.NotExecuted)
	for _, tc := range []struct {
		name  string
		err   error
		tries int
	}{
		{"resource_exhausted without advice", full, 1},
		{"with advice", full.WithRetryAfter(300 * time.Millisecond), 3},
		{"past the deadline", full.WithRetryAfter(time.Second), 1},
		{"draining, past the deadline", errDraining.WithRetryAfter(time.Hour), 1},
		{"no", errDraining.WithRetryAfter(-1), 1},
		{"rate_limited", full.WithRetryAfter(time.Millisecond).WithReason(endpoint.ReasonRateLimited), 1},
		{"local_limit", full.WithRetryAfter(time.Millisecond).WithReason(endpoint.ReasonLocalLimit), 1},
		{"breaker_open", errDraining.WithReason(endpoint.ReasonBreakerOpen), 1},
		{"no_responders obeys, too", errNobody.WithRetryAfter(400 * time.Millisecond), 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{errs: []error{tc.err}}
				_, err := caller(s.handle, middleware.Retry(middleware.RetryPolicy{}))(within(t, time.Second), &addRequest{})
				assert.ErrorIs(t, err, endpoint.CodeOf(tc.err))
				assert.Equal(t, len(s.at), tc.tries)
				e, _ := errors.AsType[*endpoint.Error](tc.err)
				for i := range len(s.at) - 1 {
					assert.True(t, s.at[i+1].Sub(s.at[i]) >= e.RetryAfter, "Retry-After is obeyed")
				}
			})
		})
	}
}

func TestRetryBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		longest := make([]time.Duration, 5)
		p := middleware.RetryPolicy{Attempts: 6, Backoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Budget: plenty()}
		for range 200 {
			s := &script{errs: []error{errDraining}}
			_, _ = caller(s.handle, middleware.Retry(p))(within(t, time.Minute), &addRequest{})
			for i := range longest {
				longest[i] = max(longest[i], s.at[i+1].Sub(s.at[i]))
			}
		}
		for i, ms := range []int{10, 20, 40, 50, 50} {
			most := time.Duration(ms) * time.Millisecond
			assert.True(t, longest[i] <= most && longest[i] > most*3/4, longest[i].String())
		}
	})
}

func plenty() *middleware.Budget {
	return middleware.NewBudget(middleware.BudgetPolicy{PerSecond: 1e9})
}

func TestRetryIdempotent(t *testing.T) {
	for _, tc := range []struct {
		name       string
		err        error
		idempotent bool
		tries      int
	}{
		{"unavailable", maybe(endpoint.Unavailable, endpoint.ReasonConnectionLost), true, 3},
		{"unavailable, not idempotent", maybe(endpoint.Unavailable, endpoint.ReasonConnectionLost), false, 1},
		{"aborted", maybe(endpoint.Aborted, ""), true, 3},
		{"aborted, executed", maybe(endpoint.Aborted, "").WithOutcome(endpoint.Executed), true, 3},
		{"aborted, not executed", maybe(endpoint.Aborted, "").WithOutcome(endpoint.NotExecuted), true, 1},
		{"internal", maybe(endpoint.Internal, ""), true, 1},
		{"the service's deadline", maybe(endpoint.DeadlineExceeded, ""), true, 1},
		{"the service's timeout", maybe(endpoint.DeadlineExceeded, endpoint.ReasonTimeout).AsRemote(), true, 1},
		{"a foreign error", errors.New("x"), true, 1},
		{"a bare code", endpoint.Unavailable, true, 3},
		{"a bare code, not idempotent", endpoint.Unavailable, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []endpoint.Option{middleware.Retry(middleware.RetryPolicy{})}
				if tc.idempotent {
					opts = append(opts, endpoint.Idempotent())
				}
				s := &script{errs: []error{tc.err}}
				_, err := caller(s.handle, opts...)(within(t, time.Minute), &addRequest{})
				assert.Equal(t, len(s.at), tc.tries)
				assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(tc.err))
			})
		})
	}
}

func TestRetryAttemptTimeout(t *testing.T) {
	ms := func(ns ...int) (ds []time.Duration) {
		for _, n := range ns {
			ds = append(ds, time.Duration(n)*time.Millisecond)
		}
		return ds
	}
	empty := middleware.NewBudget(middleware.BudgetPolicy{Ratio: -1, PerSecond: -1})
	for _, tc := range []struct {
		name   string
		policy middleware.RetryPolicy
		opts   []endpoint.Option
		least  []time.Duration // less the pauses, which are up to 2 ms each
	}{
		{"a third of the time left", middleware.RetryPolicy{}, nil, ms(3000, 2000, 4000)},
		{"given", middleware.RetryPolicy{AttemptTimeout: time.Second}, nil, ms(1000, 1000, 1000)},
		{"given, more than there is", middleware.RetryPolicy{AttemptTimeout: 5 * time.Second}, nil, ms(5000, 4000)},
		{"nothing left to try with", middleware.RetryPolicy{Budget: empty}, nil, ms(9000)},
		{"one attempt", middleware.RetryPolicy{Attempts: 1}, nil, ms(9000)},
		{"by a Timeout inside", middleware.RetryPolicy{}, []endpoint.Option{middleware.Timeout(time.Second)}, ms(1000, 1000, 1000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{errs: []error{errHang}}
				tc.policy.Backoff = 2 * time.Millisecond
				opts := append([]endpoint.Option{endpoint.Idempotent(), middleware.Retry(tc.policy)}, tc.opts...)
				_, err := caller(s.handle, opts...)(within(t, 9*time.Second), &addRequest{})
				assert.Equal(t, len(s.left), len(tc.least))
				for i, left := range s.left {
					assert.True(t, left <= tc.least[i] && left > tc.least[i]-10*time.Millisecond, left.String())
				}
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)
			})
		})
	}
}

func TestRetryWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{errs: []error{errDraining.WithRetryAfter(time.Hour), nil}}
		start := time.Now()
		_, err := caller(s.handle, endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}))(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.True(t, time.Since(start) >= time.Hour, "Retry-After")
	})
}

func TestRetryFinalError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("reset by peer")
		s := &script{errs: []error{
			maybe(endpoint.Unavailable, endpoint.ReasonConnectionLost),
			errNobody,
			endpoint.Unavailable.Wrap(lost, "gone").With(quota{Left: 7}).WithReason(endpoint.ReasonDraining).WithOutcome(endpoint.NotExecuted),
		}}
		_, err := caller(s.handle, endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}))(within(t, time.Minute), &addRequest{})
		e, _ := err.(*endpoint.Error) //nolint:errorlint // it must be one itself
		assert.Equal(t, e.Code, endpoint.Unavailable)
		assert.Equal(t, e.Reason(), endpoint.ReasonDraining)
		assert.Equal(t, e.Message, "gone")
		assert.Equal(t, e.Outcome(), endpoint.MaybeExecuted, "the first attempt may have been executed")
		assert.ErrorIs(t, err, lost)
		q, _ := endpoint.DetailOf[quota](err)
		assert.Equal(t, q.Left, 7)
		list, ok := errors.AsType[*middleware.RetryError](err)
		assert.True(t, ok, "a RetryError")
		assert.Equal(t, list.Total, 3)
		assert.Equal(t, len(list.Attempts), 3)
		for i, a := range list.Attempts {
			assert.Equal(t, a.Attempt, i)
		}
		assert.Contains(t, list.Error(), "attempts: 3", "connection_lost", "no_responders", "draining")
		assert.Equal(t, list.Unwrap(), list.Attempts[2].Err)
		assert.Equal(t, (&middleware.RetryError{}).Unwrap(), error(nil))
	})
}

func TestRetryErrorNamesInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := func(_ context.Context, c *endpoint.Call) (any, error) {
			c.SetInstance("i-1")
			time.Sleep(time.Millisecond)
			return nil, errDraining
		}
		_, err := caller(h, middleware.Retry(middleware.RetryPolicy{Attempts: 2}))(within(t, time.Minute), &addRequest{})
		assert.Equal(t, errors.Unwrap(err).Error(),
			"attempts: 2; unavailable (draining): shutting down, after 1ms at i-1; unavailable (draining): shutting down, after 1ms at i-1")
	})
}

func TestRetryOneAttemptStaysAsItIs(t *testing.T) {
	_, err := caller(fail(endpoint.NotFound.New("x")), middleware.Retry(middleware.RetryPolicy{}))(t.Context(), &addRequest{})
	assert.Equal(t, errors.Unwrap(err), error(nil))
}

func TestRetryCanceledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		s := &script{errs: []error{errDraining.WithRetryAfter(time.Minute)}}
		_, err := caller(s.handle, middleware.Retry(middleware.RetryPolicy{}))(ctx, &addRequest{})
		assert.Equal(t, time.Since(start), time.Second)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted, "nothing was executed")
		list, _ := errors.AsType[*middleware.RetryError](err)
		assert.Equal(t, list.Total, 1)
	})
}

func TestRetryInsideRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{errs: []error{errDraining}}
		again := middleware.Retry(middleware.RetryPolicy{})
		_, err := caller(s.handle, again, again, middleware.Retry(middleware.RetryPolicy{Attempts: 10}))(within(t, time.Minute), &addRequest{})
		assert.ErrorIs(t, err, endpoint.Unavailable)
		assert.Equal(t, len(s.at), 3)
	})
}

func TestRetryOnTheServerPassesThrough(t *testing.T) {
	m := endpoint.NewMux()
	n := 0
	serve(t, m, "svc.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		n++
		return nil, errDraining
	}, endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{})))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, n, 1)
}

// TestRetryAttemptsAreFresh: what inner middleware writes to one attempt does not show in the next.
func TestRetryAttemptsAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen [][]string
		stamp := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				c.Header.Add("x-attempt", "1")
				c.Header.Del("gone")
				seen = append(seen, append(c.Header.Values("x-attempt"), c.Header.Values("kept")...))
				assert.Equal(t, c.Trace(), "trace")
				c.SetTrace("span")
				return next(ctx, c)
			}
		}
		trace := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				c.SetTrace("trace")
				reply, err := next(ctx, c)
				assert.Equal(t, c.Instance(), "i-3")
				assert.Equal(t, c.Reply.Get("n"), "3")
				return reply, err
			}
		}
		s := &script{errs: []error{errDraining, errDraining, nil}}
		instance := func(ctx context.Context, c *endpoint.Call) (any, error) {
			n := string(rune('1' + len(s.at)))
			c.SetInstance("i-" + n)
			c.Reply.Set("n", n)
			return s.handle(ctx, c)
		}
		ctx := endpoint.WithHeader(within(t, time.Minute), "gone", "x", "kept", "y")
		_, err := caller(instance, endpoint.With(trace, middleware.Retry(middleware.RetryPolicy{}), stamp))(ctx, &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, seen, [][]string{{"1", "y"}, {"1", "y"}, {"1", "y"}})
		for i, c := range s.calls {
			assert.Equal(t, c.Attempt, i)
		}
	})
}

func TestRetryBudgetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []float64
		budget := middleware.NewBudget(middleware.BudgetPolicy{Ratio: -1, PerSecond: 0.3, Report: func(name, subject string, value float64) {
			assert.Equal(t, name+" "+subject, "retry_budget svc.add")
			reported = append(reported, value)
		}})
		s := &script{errs: []error{errDraining}}
		for range 2 {
			call := caller(s.handle, middleware.Retry(middleware.RetryPolicy{Budget: budget}))
			_, err := call(within(t, time.Minute), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Unavailable)
		}
		assert.Equal(t, len(s.at), 3+2, "three further attempts in all")
		assert.Equal(t, reported, []float64{2, 1, 0, 0})
	})
}

// TestRetryBudgetOfEachService: without a Budget, services of one value don't take from each other.
func TestRetryBudgetOfEachService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{errs: []error{errDraining}}
		again := middleware.Retry(middleware.RetryPolicy{Attempts: 1000, MaxBackoff: 1, Backoff: 1})
		for _, subject := range []string{"a.x", "a.y", "b.x"} {
			call := endpoint.Caller[*addRequest, *addResponse](transport(s.handle), subject, again)
			_, err := call(within(t, time.Minute), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Unavailable)
		}
		n := map[string]int{}
		for _, c := range s.calls {
			n[c.Subject]++
		}
		assert.Equal(t, n, map[string]int{"a.x": 101, "a.y": 1, "b.x": 101})
	})
}
