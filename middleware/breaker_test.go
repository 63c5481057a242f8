package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// moody is a service that answers as it is told to. It counts how often it ran.
type moody struct {
	mood atomic.Pointer[error]
	ran  atomic.Int64
}

func (m *moody) set(err error) { m.mood.Store(&err) }

func (m *moody) add(ctx context.Context, r *addRequest) (*addResponse, error) {
	m.ran.Add(1)
	if err := m.mood.Load(); err != nil && *err != nil {
		if *err == errHang { //nolint:errorlint // identity is meant
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, *err
	}
	return add(ctx, r)
}

func open(err error) bool {
	return reasonOf(err) == endpoint.ReasonBreakerOpen
}

var errDown = endpoint.Unavailable.New("down")

func TestBreakerOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m moody
		mux := endpoint.NewMux()
		serve(t, mux, "svc.add", endpoint.New(m.add))
		var changes []string
		call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.Breaker(middleware.BreakerPolicy{
			OnStateChange: func(subject string, from, to middleware.BreakerState) {
				changes = append(changes, fmt.Sprint(subject, " ", from, " ", to))
			},
			Report: func(name, subject string, value float64) {
				changes = append(changes, fmt.Sprint(name, " ", subject, " ", value))
			},
		}))
		m.set(errDown)
		for range 6 {
			_, err := call(t.Context(), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Unavailable)
			assert.True(t, !open(err), "the service's own words")
		}
		time.Sleep(2 * time.Second)
		_, err := call(t.Context(), &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.Unavailable)
		assert.Equal(t, e.Reason(), endpoint.ReasonBreakerOpen)
		assert.Equal(t, e.Outcome(), endpoint.NotSent)
		assert.Equal(t, e.RetryAfter, 3*time.Second)
		assert.True(t, !e.Remote(), "not remote")
		time.Sleep(e.RetryAfter - 1)
		_, err = call(t.Context(), &addRequest{})
		assert.True(t, open(err), "not before RetryAfter")
		assert.Equal(t, m.ran.Load(), 6)

		time.Sleep(time.Millisecond)
		_, err = call(t.Context(), &addRequest{})
		assert.True(t, err != nil && !open(err), "a trial")
		_, err = call(t.Context(), &addRequest{})
		assert.True(t, open(err), "it failed, so it is open again")
		time.Sleep(5 * time.Second)
		m.set(nil)
		for range 3 {
			_, err = call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		assert.Equal(t, changes, []string{
			"breaker_state svc.add 0",
			"breaker_state svc.add 2", "svc.add closed open",
			"breaker_state svc.add 1", "svc.add open half_open",
			"breaker_state svc.add 2", "svc.add half_open open",
			"breaker_state svc.add 1", "svc.add open half_open",
			"breaker_state svc.add 0", "svc.add half_open closed",
		})
	})
}

// TestBreakerTrial: in the half-open state one call passes, and all others are refused while it is out.
func TestBreakerTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var passed, refused atomic.Int64
		trying := false
		h := func(ctx context.Context, c *endpoint.Call) (any, error) {
			if !trying {
				return nil, errDown
			}
			passed.Add(1)
			time.Sleep(time.Second)
			return ok(ctx, c)
		}
		call := caller(h, middleware.Breaker(middleware.BreakerPolicy{}))
		for range 6 {
			_, _ = call(t.Context(), &addRequest{})
		}
		time.Sleep(5 * time.Second)
		trying = true
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := call(t.Context(), &addRequest{}); err != nil {
					e, _ := errors.AsType[*endpoint.Error](err)
					assert.Equal(t, e.Reason(), endpoint.ReasonBreakerOpen)
					assert.Equal(t, e.RetryAfter, 5*time.Second, "until the trial has to make room")
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, passed.Load(), 1)
		assert.Equal(t, refused.Load(), 49)
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
	})
}

// TestBreakerStaysClosed: what is nobody's fault, or the caller's, opens nothing.
func TestBreakerStaysClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m moody
		mux := endpoint.NewMux()
		limit := rate.NewLimiter(rate.Inf, 0)
		serve(t, mux, "svc.add", endpoint.New(m.add, middleware.RateLimit(limit)))
		calm := middleware.BreakerPolicy{OnStateChange: func(string, middleware.BreakerState, middleware.BreakerState) { t.Error("it changed") }}
		mw := middleware.Breaker(calm)
		call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", mw)
		for i := range 100 {
			m.set([]endpoint.Code{
				endpoint.NotFound, endpoint.InvalidArgument, endpoint.AlreadyExists, endpoint.PermissionDenied, endpoint.ResourceExhausted,
				endpoint.FailedPrecondition, endpoint.Aborted, endpoint.OutOfRange, endpoint.Unimplemented, endpoint.Unauthenticated,
			}[i%10].New("x"))
			_, err := call(t.Context(), &addRequest{})
			assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(*m.mood.Load()))
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.Executed)
		}
		m.set(errHang)
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			_, err := call(ctx, &addRequest{})
			assert.ErrorIs(t, err, context.Canceled)
		}
		limit.SetLimit(0)
		for range 20 {
			_, err := call(t.Context(), &addRequest{})
			assert.Equal(t, reasonOf(err), endpoint.ReasonRateLimited)
		}
		nobody := endpoint.Caller[*addRequest, *addResponse](mux, "svc.nobody", mw)
		for range 20 {
			_, err := nobody(t.Context(), &addRequest{})
			assert.Equal(t, reasonOf(err), endpoint.ReasonNoResponders)
		}
	})
}

// TestBreakerVerdicts finds out of each error whether it counts as failure, success or neither, from the outside.
func TestBreakerVerdicts(t *testing.T) {
	judge := func(side endpoint.Side, h endpoint.Handler, err error) string {
		next := fail(errDown.WithOutcome(endpoint.Executed))
		b := middleware.Breaker(middleware.BreakerPolicy{})(func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) })
		run := func() bool {
			c := newCall(side)
			if side == endpoint.ServerSide { // the function was entered
				c = entered(t)
			}
			_, err := b(t.Context(), c)
			return open(err)
		}
		for range 5 {
			run()
		}
		down := next
		if next = h; h == nil {
			next = fail(err)
		}
		run()
		next = down
		if run() {
			return "failure"
		}
		if run() {
			return "neither"
		}
		return "success"
	}
	maybe, executed, notSent, notExecuted := endpoint.MaybeExecuted, endpoint.Executed, endpoint.NotSent, endpoint.NotExecuted
	for _, tc := range []struct {
		code endpoint.Code
		want map[endpoint.Outcome]string
	}{
		{endpoint.Unavailable, map[endpoint.Outcome]string{maybe: "failure", executed: "failure", notSent: "neither", notExecuted: "neither"}},
		{endpoint.DeadlineExceeded, map[endpoint.Outcome]string{maybe: "failure", executed: "failure", notSent: "neither", notExecuted: "neither"}},
		{endpoint.Internal, map[endpoint.Outcome]string{maybe: "failure", executed: "failure", notSent: "neither", notExecuted: "neither"}},
		{endpoint.Unknown, map[endpoint.Outcome]string{maybe: "failure", executed: "failure", notSent: "neither", notExecuted: "neither"}},
		{endpoint.DataLoss, map[endpoint.Outcome]string{maybe: "failure", executed: "failure", notSent: "neither", notExecuted: "neither"}},
		{endpoint.NotFound, map[endpoint.Outcome]string{maybe: "neither", executed: "success", notSent: "neither", notExecuted: "neither"}},
		{endpoint.ResourceExhausted, map[endpoint.Outcome]string{maybe: "neither", executed: "success", notSent: "neither", notExecuted: "neither"}},
		{endpoint.Canceled, map[endpoint.Outcome]string{maybe: "neither", executed: "neither", notSent: "neither", notExecuted: "neither"}},
	} {
		for outcome, want := range tc.want {
			assert.Equal(t, judge(endpoint.ClientSide, nil, tc.code.New("x").WithOutcome(outcome)), want, tc.code.String(), outcome.String())
		}
		assert.Equal(t, judge(endpoint.ServerSide, nil, tc.code.New("x")), tc.want[executed], "at the server:", tc.code.String())
	}
	assert.Equal(t, judge(endpoint.ClientSide, ok, nil), "success")
	assert.Equal(t, judge(endpoint.ClientSide, nil, errors.New("foreign")), "failure")
	assert.Equal(t, judge(endpoint.ClientSide, nil, context.Canceled), "neither")
	assert.Equal(t, judge(endpoint.ClientSide, nil, context.DeadlineExceeded), "failure")
	assert.Equal(t, judge(endpoint.ServerSide, nil, endpoint.NotFound.New("of another service").AsRemote()), "failure", "the peer is told internal")
}

// entered is a server's call whose function has run.
func entered(t *testing.T) *endpoint.Call {
	t.Helper()
	m := endpoint.NewMux()
	var c *endpoint.Call
	serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		c = endpoint.FromContext(ctx)
		return add(ctx, r)
	}))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.NoError(t, err)
	return c
}

// TestBreakerCallerLeft: a caller that has left made the failure itself, whatever it is called.
func TestBreakerCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(func(ctx context.Context, _ *endpoint.Call) (any, error) {
			<-ctx.Done()
			return nil, endpoint.Internal.New("the query broke off").WithOutcome(endpoint.Executed)
		}, middleware.Breaker(middleware.BreakerPolicy{}))
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			_, err := call(ctx, &addRequest{})
			assert.ErrorIs(t, err, endpoint.Internal)
		}
		for range 6 { // a deadline is another matter, however short
			_, err := call(within(t, time.Millisecond), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Internal)
		}
		_, err := call(t.Context(), &addRequest{})
		assert.True(t, open(err), "open")
	})
}

func TestBreakerRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			policy middleware.BreakerPolicy
			every  int // which call fails
			opens  int // at which call, 0 for never
		}{
			{middleware.BreakerPolicy{}, 2, 20},
			{middleware.BreakerPolicy{}, 3, 0},
			{middleware.BreakerPolicy{FailureRatio: 0.25, MinCalls: 100}, 4, 100},
			{middleware.BreakerPolicy{FailureRatio: 1, MinCalls: 1}, 1, 1},
			{middleware.BreakerPolicy{FailureRatio: 1, Failures: 1}, 7, 7},
		} {
			n := 0
			call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
				if n%tc.every == 0 {
					return nil, errDown
				}
				return ok(ctx, c)
			}, middleware.Breaker(tc.policy))
			opened := 0
			for n = 1; n <= 500; n++ {
				if _, err := call(t.Context(), &addRequest{}); open(err) {
					opened = n - 1
					break
				}
			}
			assert.Equal(t, opened, tc.opens, fmt.Sprintf("%+v", tc))
		}
	})
}

// TestBreakerWindow: failures are forgotten as the window rolls on, and a call counts when it ends, however long it took.
func TestBreakerWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(fail(errDown), middleware.Breaker(middleware.BreakerPolicy{}))
		for range 20 {
			_, err := call(t.Context(), &addRequest{})
			assert.True(t, !open(err), "five in thirty seconds at most")
			time.Sleep(6 * time.Second)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		call := caller(hang, middleware.Breaker(middleware.BreakerPolicy{}))
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { _, _ = call(within(t, time.Hour), &addRequest{}) })
		}
		wg.Wait()
		_, err := call(t.Context(), &addRequest{})
		assert.True(t, open(err), "six that hung for an hour")
	})
}

// TestBreakerOldCalls: a call that began before the last change says nothing of now.
func TestBreakerOldCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
			if slow.Load() {
				time.Sleep(7 * time.Second)
				return ok(ctx, c)
			}
			return nil, errDown
		}, middleware.Breaker(middleware.BreakerPolicy{}))
		slow.Store(true)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _, _ = call(t.Context(), &addRequest{}) })
		}
		synctest.Wait()
		slow.Store(false)
		for range 7 { // opens, and half-opens at 5 s: the trial is slow, and out when the old ones succeed
			_, _ = call(t.Context(), &addRequest{})
		}
		time.Sleep(5 * time.Second)
		slow.Store(true)
		wg.Go(func() { _, _ = call(t.Context(), &addRequest{}) })
		time.Sleep(3 * time.Second)
		slow.Store(false)
		_, err := call(t.Context(), &addRequest{})
		assert.True(t, open(err), "half-open still, its trial is out")
		wg.Wait()
		_, err = call(t.Context(), &addRequest{})
		assert.True(t, !open(err), "closed by its trial")
	})
}

// TestBreakerTrialEnds: however a trial ends, its place is free for the next one.
func TestBreakerTrialEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		trial  endpoint.Handler
		passes bool
	}{
		{"neither", fail(errNobody), true},
		{"panic", func(context.Context, *endpoint.Call) (any, error) { panic("trial") }, true},
		{"goexit", func(context.Context, *endpoint.Call) (any, error) { runtime.Goexit(); return nil, nil }, true},
		{"failed", fail(errDown), false},
		{"stuck", func(ctx context.Context, c *endpoint.Call) (any, error) {
			time.Sleep(5 * time.Second)
			return nil, errDown
		}, false}, // it ends at the moment it would have to make room
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := fail(errDown)
				call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) },
					middleware.Breaker(middleware.BreakerPolicy{}))
				for range 6 {
					_, _ = call(t.Context(), &addRequest{})
				}
				time.Sleep(5 * time.Second)
				next = tc.trial
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() { _ = recover() }()
					_, _ = call(t.Context(), &addRequest{})
				})
				wg.Wait()
				next = ok
				_, err := call(t.Context(), &addRequest{})
				assert.Equal(t, err == nil, tc.passes)
				if tc.passes {
					_, err = call(t.Context(), &addRequest{})
					assert.NoError(t, err, "closed")
				}
			})
		})
	}
}

// TestBreakerStuckTrial: a trial that never returns makes room, and its end does not count any more.
func TestBreakerStuckTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := fail(errDown)
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) },
			middleware.Breaker(middleware.BreakerPolicy{}))
		for range 6 {
			_, _ = call(t.Context(), &addRequest{})
		}
		time.Sleep(5 * time.Second)
		next = func(ctx context.Context, _ *endpoint.Call) (any, error) {
			time.Sleep(time.Hour)
			return nil, errDown
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = call(t.Context(), &addRequest{}) })
		synctest.Wait()
		next = ok
		time.Sleep(time.Second)
		_, err := call(t.Context(), &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.RetryAfter, 4*time.Second)
		time.Sleep(e.RetryAfter)
		_, err = call(t.Context(), &addRequest{})
		assert.NoError(t, err, "the next trial")
		wg.Wait()
		_, err = call(t.Context(), &addRequest{})
		assert.NoError(t, err, "closed, whatever the first trial said in the end")
	})
}

func TestBreakerTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := fail(errDown)
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) },
			middleware.Breaker(middleware.BreakerPolicy{Trials: 3, Failures: 1, OpenFor: time.Minute}))
		_, _ = call(t.Context(), &addRequest{})
		time.Sleep(time.Minute)
		next = ok
		for range 2 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		next = fail(errDown)
		_, _ = call(t.Context(), &addRequest{})
		_, err := call(t.Context(), &addRequest{})
		assert.True(t, open(err), "the third of three failed")
		time.Sleep(time.Minute)
		next = ok
		for range 3 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		next = fail(errNobody)
		for range 10 {
			_, err := call(t.Context(), &addRequest{})
			assert.True(t, !open(err), "closed")
		}
	})
}

func TestBreakerSubjectsAndSides(t *testing.T) {
	var m moody
	mux := endpoint.NewMux()
	mux.Use(middleware.Breaker(middleware.BreakerPolicy{OpenFor: time.Hour}))
	serve(t, mux, "svc.bad", endpoint.New(m.add))
	serve(t, mux, "svc.good", endpoint.New(add))
	m.set(errDown)
	for range 6 { // callers of one subject, each made anew
		_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.bad")(t.Context(), &addRequest{})
		assert.Equal(t, err.(*endpoint.Error).Outcome(), endpoint.Executed) //nolint:errorlint // it must be one itself
	}
	_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.bad")(t.Context(), &addRequest{})
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent, "the client's")
	_, err = endpoint.Caller[*addRequest, *addResponse](mux, "svc.good")(t.Context(), &addRequest{})
	assert.NoError(t, err)

	// The server's breaker is another one: it opened, too, and shows to a caller without one.
	plain := endpoint.Caller[*addRequest, *addResponse](transport(mux.Handler("svc.bad", endpoint.New(add).Spec())), "svc.bad")
	_, err = plain(t.Context(), &addRequest{})
	e, _ := errors.AsType[*endpoint.Error](err)
	assert.True(t, open(err) && e.Remote() && e.Outcome() == endpoint.NotExecuted, "the server's")
	assert.Equal(t, m.ran.Load(), 6)
}

func TestBreakerRefusesBeforeDecoding(t *testing.T) {
	ep := endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return nil, errDown },
		middleware.Breaker(middleware.BreakerPolicy{Failures: 1, OpenFor: time.Hour}))
	mux := endpoint.NewMux()
	serve(t, mux, "svc.add", ep)
	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(t.Context(), &addRequest{})
	_, err := endpoint.Caller[*map[string]any, *addResponse](mux, "svc.add")(t.Context(), &map[string]any{"A": "not a number"})
	assert.True(t, open(err), fmt.Sprint(err))
}

func TestBreakerRetryLeavesRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{errs: []error{errDown}}
		call := caller(s.handle, endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}), middleware.Breaker(middleware.BreakerPolicy{}))
		for range 2 {
			_, err := call(within(t, time.Minute), &addRequest{})
			assert.True(t, !open(err), "three attempts each")
		}
		start := time.Now()
		_, err := call(within(t, time.Minute), &addRequest{})
		assert.True(t, open(err), "open")
		assert.Equal(t, time.Since(start), 0)
		assert.Equal(t, len(s.at), 6)
	})
}

// TestBreakerStreams: a stream counts once, by its end.
func TestBreakerStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := endpoint.NewMux()
		broken := true
		serve(t, mux, "svc.watch", endpoint.NewServerStream(func(ctx context.Context, _ *addRequest) iter.Seq2[*addResponse, error] {
			return func(yield func(*addResponse, error) bool) {
				for range 20 {
					if !yield(&addResponse{}, nil) {
						return
					}
					if time.Sleep(time.Second); ctx.Err() != nil {
						return
					}
				}
				if broken {
					yield(nil, errDown)
				}
			}
		}))
		watch := endpoint.ServerStreamCaller[*addRequest, *addResponse](mux, "svc.watch", middleware.Breaker(middleware.BreakerPolicy{OpenFor: 10 * time.Second}))
		run := func(most int) (n int, last error) {
			for _, err := range watch(t.Context(), &addRequest{}) {
				if last = err; err == nil {
					n++
				}
				if n == most {
					break
				}
			}
			return n, last
		}
		for range 20 {
			n, err := run(2)
			assert.True(t, n == 2 && err == nil, "left by the consumer")
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { _, _ = run(100) })
		}
		wg.Wait()
		n, err := run(100)
		assert.True(t, n == 0 && open(err), "open")

		// A stream that lives is a trial that went well, long before its end.
		time.Sleep(10 * time.Second)
		wg.Go(func() { _, _ = run(100) })
		time.Sleep(9 * time.Second)
		_, err = run(1)
		assert.True(t, open(err), "half-open")
		time.Sleep(time.Second)
		_, err = run(1)
		assert.NoError(t, err)
		_, err = run(1)
		assert.NoError(t, err)
		wg.Wait()
	})
}

func TestBreakerGatherPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := endpoint.NewMux()
		serve(t, mux, "svc.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return nil, errDown }))
		mw := middleware.Breaker(middleware.BreakerPolicy{})
		gather := endpoint.Gather[*addRequest, *addResponse](mux, "svc.add", mw)
		for range 20 {
			for r, err := range gather(t.Context(), &addRequest{}) {
				assert.NoError(t, err)
				assert.True(t, !open(r.Err), "asked")
			}
		}
		_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", mw)(t.Context(), &addRequest{})
		assert.True(t, !open(err), "closed")
	})
}

// TestBreakerCallsBack: a callback may call through the breaker that calls it, even change its state; order is kept.
func TestBreakerCallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		inside := false
		var call endpoint.Unary[*addRequest, *addResponse]
		next := fail(errDown)
		call = caller(func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) },
			middleware.Breaker(middleware.BreakerPolicy{OnStateChange: func(_ string, from, to middleware.BreakerState) {
				assert.True(t, !inside, "one after the other")
				inside = true
				defer func() { inside = false }()
				if changes = append(changes, from.String()+" "+to.String()); to == middleware.BreakerOpen {
					time.Sleep(5 * time.Second)
					next = ok
					_, err := call(t.Context(), &addRequest{})
					assert.NoError(t, err)
				}
			}}))
		for range 6 {
			_, _ = call(t.Context(), &addRequest{})
		}
		assert.Equal(t, changes, []string{"closed open", "open half_open", "half_open closed"})
	})
}

// TestBreakerCallbackPanics: it surfaces in the call, and nothing is stuck.
func TestBreakerCallbackPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		call := caller(fail(errDown), middleware.Recover(), middleware.Breaker(middleware.BreakerPolicy{
			Failures:      1,
			OnStateChange: func(string, middleware.BreakerState, middleware.BreakerState) { n++; panic("callback") },
		}))
		for i := range 3 {
			_, err := call(t.Context(), &addRequest{})
			assert.Equal(t, reasonOf(err), endpoint.ReasonPanic)
			assert.True(t, n > i, "told")
			_, err = call(t.Context(), &addRequest{})
			assert.True(t, open(err), "open")
			time.Sleep(5 * time.Second)
		}
	})
}

// TestBreakerForgets: a program that makes up subjects does not fill the memory.
func TestBreakerForgets(t *testing.T) {
	mw := middleware.Breaker(middleware.BreakerPolicy{Failures: 1, OpenFor: time.Hour})
	call := func(subject string) error {
		_, err := endpoint.Caller[*addRequest, *addResponse](transport(fail(errDown)), subject, mw)(t.Context(), &addRequest{})
		return err
	}
	held := endpoint.Caller[*addRequest, *addResponse](transport(fail(errDown)), "held.x", mw)
	_, _ = held(t.Context(), &addRequest{})
	_ = call("one.x")
	for i := range 4000 {
		_ = call(fmt.Sprintf("few%d.x", i))
	}
	assert.True(t, open(call("one.x")), "remembered")
	for i := range 12_000 {
		_ = call(fmt.Sprintf("many%d.x", i))
	}
	assert.True(t, !open(call("one.x")), "forgotten")
	_, err := held(t.Context(), &addRequest{})
	assert.True(t, !open(err), "by those who hold it, too")
	assert.True(t, open(call("held.x")), "and shared again")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 12_000 {
		_ = call(fmt.Sprintf("more%d.x", i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.True(t, int64(after.HeapAlloc)-int64(before.HeapAlloc) < 8<<20, "bounded")
	runtime.KeepAlive(mw)
}

func TestBreakerConcurrent(t *testing.T) {
	var m moody
	var mu sync.Mutex
	last, changes := middleware.BreakerClosed, 0
	call := caller(func(ctx context.Context, _ *endpoint.Call) (any, error) { return m.add(ctx, &addRequest{}) },
		middleware.Breaker(middleware.BreakerPolicy{OpenFor: time.Microsecond, OnStateChange: func(_ string, from, to middleware.BreakerState) {
			mu.Lock()
			defer mu.Unlock()
			if from != last {
				t.Errorf("from %v, was %v", from, last)
			}
			last = to
			changes++
		}}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 2000 {
				if i == 0 && n%50 == 0 {
					if n%100 == 0 {
						m.set(errDown)
					} else {
						m.set(nil)
					}
				}
				_, _ = call(t.Context(), &addRequest{})
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	assert.True(t, changes > 0, "it changed")
}

func TestBreakerFaults(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ClientSide, endpoint.ServerSide} {
		_, err := middleware.Breaker(middleware.BreakerPolicy{
			Failures: -1, FailureRatio: -1, MinCalls: -1, Window: -1, OpenFor: -1, Trials: -1,
		})(ok)(t.Context(), newCall(side))
		assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
		for _, name := range []string{"Failures", "FailureRatio", "MinCalls", "Window", "OpenFor", "Trials"} {
			assert.Contains(t, errors.Unwrap(err).Error(), "middleware.Breaker: ", name+" is negative")
		}
	}
	for _, p := range []middleware.BreakerPolicy{{FailureRatio: 1.1}, {FailureRatio: math.NaN()}, {FailureRatio: math.Inf(1)}, {Window: time.Millisecond}} {
		_, err := caller(ok, middleware.Breaker(p))(t.Context(), &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
	}
	_, err := caller(ok, middleware.Breaker(middleware.BreakerPolicy{Trials: math.MaxInt, Failures: math.MaxInt, MinCalls: math.MaxInt}))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, middleware.BreakerState(3).String(), "unknown")
}
