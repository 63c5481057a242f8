package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// changes collects what a Breaker says of its state.
type changes struct {
	mu   sync.Mutex
	list []string
}

func (c *changes) note(_ string, from, to middleware.BreakerState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprint(from, " → ", to))
}

func (c *changes) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// stacked is a Mux with both stacks.
func stacked(d middleware.Defaults) *endpoint.Mux {
	m := endpoint.NewMux()
	m.Use(middleware.Server(d), middleware.Client(d))
	return m
}

// A rate limit must never open a breaker: Go kit's addsvc has them the other way round, and one burst is an outage.
func TestStackLimitLeavesTheBreakerClosed(t *testing.T) {
	for _, side := range []string{"server", "client"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c changes
				d := middleware.Defaults{Breaker: &middleware.BreakerPolicy{OnStateChange: c.note}, Retry: &middleware.RetryPolicy{}}
				if side == "server" {
					d.Limiter = rate.NewLimiter(1, 1)
				} else {
					d.CallLimiter = rate.NewLimiter(1, 1)
				}
				m := stacked(d)
				serve(t, m, "svc.add", endpoint.New(add))
				sum := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.Idempotent())
				codes := map[endpoint.Code]int{}
				for range 12 {
					_, err := sum(t.Context(), &addRequest{})
					codes[endpoint.CodeOf(err)]++
					if e, ok := errors.AsType[*endpoint.Error](err); ok {
						assert.True(t, e.RetryAfter > 900*time.Millisecond && e.RetryAfter <= time.Second, "RetryAfter")
					}
				}
				assert.Equal(t, codes, map[endpoint.Code]int{endpoint.OK: 1, endpoint.ResourceExhausted: 11})
				time.Sleep(1100 * time.Millisecond)
				_, err := sum(t.Context(), &addRequest{})
				assert.NoError(t, err)
				assert.Equal(t, len(c.seen()), 0, "changes of the breaker")
			})
		})
	}
}

// Only what may have been executed and failed for the service's own reasons opens the breaker.
func TestStackBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c changes
		m := stacked(middleware.Defaults{Breaker: &middleware.BreakerPolicy{OnStateChange: c.note}})
		var fate error
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			if errors.Is(fate, context.Canceled) {
				<-ctx.Done()
			}
			return &addResponse{}, fate
		}))
		sum := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
		for _, fate = range []error{endpoint.NotFound, endpoint.InvalidArgument, endpoint.FailedPrecondition, endpoint.Aborted, endpoint.ResourceExhausted} {
			for range 20 {
				_, err := sum(t.Context(), &addRequest{})
				assert.ErrorIs(t, err, fate)
			}
		}
		fate = context.Canceled
		for range 20 {
			ctx, leave := context.WithCancel(t.Context())
			go leave()
			_, err := sum(ctx, &addRequest{})
			assert.ErrorIs(t, err, context.Canceled)
		}
		synctest.Wait() // for the handlers
		nobody := endpoint.Caller[*addRequest, *addResponse](m, "svc.nobody")
		for range 20 {
			_, err := nobody(t.Context(), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Unavailable)
		}
		assert.Equal(t, len(c.seen()), 0, "business errors, cancellations and refusals leave it closed")

		fate = endpoint.Unavailable
		for range 6 {
			_, _ = sum(t.Context(), &addRequest{})
		}
		_, err := sum(t.Context(), &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonBreakerOpen)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
		fate = nil
		time.Sleep(5 * time.Second)
		_, err = sum(t.Context(), &addRequest{})
		assert.NoError(t, err, "the trial")
		assert.Equal(t, c.seen(), []string{"closed → open", "open → half_open", "half_open → closed"})
	})
}

// Each stack acts on its own side only, and what is nil is absent.
func TestStackSides(t *testing.T) {
	var seen []string
	spy := func(name string) endpoint.Middleware {
		return func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				seen = append(seen, fmt.Sprint(c.Side, " ", name, " ", c.Attempt))
				return next(ctx, c)
			}
		}
	}
	d := middleware.Defaults{Metrics: spy("metrics"), Tracing: spy("tracing"), Retry: &middleware.RetryPolicy{}}
	m := stacked(d)
	tries := 0
	serve(t, m, "svc.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		if tries++; tries == 1 {
			return nil, endpoint.Aborted
		}
		return &addResponse{}, nil
	}))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.Idempotent())(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, strings.Join(seen, ", "), "client metrics 0, client tracing 0, client tracing 0, server metrics 0, server tracing 0, "+
		"client tracing 1, server metrics 1, server tracing 1")

	seen = nil
	m = stacked(middleware.Defaults{})
	serve(t, m, "svc.add", endpoint.New(add))
	_, err = endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, len(seen), 0)
}

// All faults of all policies of a side are there at the first call, each by its name.
func TestStackFaults(t *testing.T) {
	d := middleware.Defaults{
		Timeout: -1, Concurrency: -1, Identity: &middleware.IdentityPolicy{}, Adaptive: &middleware.AdaptivePolicy{Min: 2, Max: 1}, Limiter: (*rate.Limiter)(nil),
		Throttle: &middleware.ThrottlePolicy{K: 0.5}, Retry: &middleware.RetryPolicy{Attempts: -1, Backoff: -1},
		Hedge: &middleware.HedgePolicy{ExtraLoad: -1}, CallLimiter: (*rate.Limiter)(nil), Breaker: &middleware.BreakerPolicy{Trials: -1},
	}
	m := endpoint.NewMux()
	m.Use(middleware.Client(d))
	serve(t, m, "svc.add", endpoint.New(add))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
	assert.Contains(t, err.Error(), "Timeout is negative", "Throttle: a K of 0.5", "Retry: Attempts is negative", "Retry: Backoff is negative",
		"Hedge: ExtraLoad is negative", "CallLimiter is a nil pointer", "Breaker: Trials is negative")

	var cause error
	spy := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			cause = err
			return reply, err
		}
	}
	m = endpoint.NewMux()
	m.Use(endpoint.OnServer(spy), middleware.Server(d))
	serve(t, m, "svc.add", endpoint.New(add))
	_, err = endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Internal)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
	assert.Contains(t, cause.Error(), "Timeout is negative", "Concurrency is negative", "Adaptive: a Min of 2", "Identity: there is no key", "Limiter is a nil pointer")
}

// Retry and Hedge of one stack work together: each attempt may be hedged.
func TestStackRetriesAndHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stacked(middleware.Defaults{
			Retry: &middleware.RetryPolicy{}, Hedge: &middleware.HedgePolicy{ExtraLoad: 0.5, Budget: middleware.NewBudget(middleware.BudgetPolicy{Ratio: 1, PerSecond: 1000})},
		})
		var calls, slow int
		var mu sync.Mutex
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			mu.Lock()
			calls++
			stuck := slow > 0
			if stuck {
				slow--
			}
			mu.Unlock()
			if stuck {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			time.Sleep(time.Millisecond)
			return add(ctx, r)
		}))
		sum := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.Idempotent())
		for range 200 {
			_, err := sum(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		mu.Lock()
		calls, slow = 0, 1
		mu.Unlock()
		start := time.Now()
		_, err := sum(t.Context(), &addRequest{A: 1})
		assert.NoError(t, err)
		assert.True(t, time.Since(start) < 100*time.Millisecond, "the second attempt answered")
		synctest.Wait()
		assert.Equal(t, calls, 2)
	})
}

func ExampleServer() {
	mux := endpoint.NewMux()
	d := middleware.Defaults{
		Authenticate: func(ctx context.Context, c *endpoint.Call) (context.Context, error) {
			if c.Header.Get("X-Key") != "open sesame" {
				return nil, endpoint.Unauthenticated.New("who are you?")
			}
			return ctx, nil
		},
		Limiter: rate.NewLimiter(rate.Every(time.Hour), 1),
		Retry:   &middleware.RetryPolicy{},
		Breaker: &middleware.BreakerPolicy{},
	}
	mux.Use(middleware.Server(d), middleware.Client(d)) // each acts on its side only
	_ = mux.Serve("svc.add", endpoint.New(add))
	sum := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")

	ctx := context.Background()
	_, err := sum(ctx, &addRequest{A: 1, B: 2})
	fmt.Println(err)
	ctx = endpoint.WithHeader(ctx, "X-Key", "open sesame")
	reply, _ := sum(ctx, &addRequest{A: 1, B: 2})
	fmt.Println(reply.Sum)
	_, err = sum(ctx, &addRequest{A: 1, B: 2})
	fmt.Println(err)
	// Output:
	// unauthenticated: who are you?
	// 3
	// resource_exhausted (rate_limited): the rate limit is reached
}

// One limiter for both sides of one process is taken from twice by each of its own calls. A limit belongs to the side whose
// means it guards: Limiter to handlers, CallLimiter to calls.
func ExampleClient_incorrect() {
	both := rate.NewLimiter(rate.Every(time.Hour), 1)
	mux := endpoint.NewMux()
	d := middleware.Defaults{Limiter: both, CallLimiter: both}
	mux.Use(middleware.Server(d), middleware.Client(d))
	_ = mux.Serve("svc.add", endpoint.New(add))
	_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Println(err)
	// Output: resource_exhausted (rate_limited): the rate limit is reached
}

// In a stack Timeout and Retry are one layer. It does what the two do by themselves, one around the other.
func TestStackTimeoutAroundRetry(t *testing.T) {
	const bound = 3 * time.Second
	within := func(policy middleware.RetryPolicy) map[string]endpoint.Middleware {
		return map[string]endpoint.Middleware{
			"one": middleware.Client(middleware.Defaults{Timeout: bound, Retry: &policy}),
			"two": endpoint.Chain(middleware.Timeout(bound), middleware.Retry(policy)),
		}
	}
	type made struct {
		err, cause   string
		took         time.Duration
		deadlines    []time.Duration // of the attempts
		ends, causes []string
	}
	for _, tc := range []struct {
		name   string
		policy middleware.RetryPolicy
		opts   []endpoint.Option
		outer  time.Duration
		then   func(attempt int) endpoint.Handler
	}{
		{name: "hangs", then: func(int) endpoint.Handler { return hang }},
		{name: "hangs, idempotent", opts: []endpoint.Option{endpoint.Idempotent()}, then: func(int) endpoint.Handler { return hang }},
		{name: "hangs once", opts: []endpoint.Option{endpoint.Idempotent()}, then: func(n int) endpoint.Handler {
			return []endpoint.Handler{hang, ok}[n]
		}},
		{name: "goes well", opts: []endpoint.Option{endpoint.Idempotent()}, then: func(int) endpoint.Handler { return ok }},
		{
			name: "an attempt's own bound", policy: middleware.RetryPolicy{AttemptTimeout: time.Minute},
			opts: []endpoint.Option{endpoint.Idempotent()}, then: func(int) endpoint.Handler { return hang },
		},
		{name: "once", policy: middleware.RetryPolicy{Attempts: 1}, opts: []endpoint.Option{endpoint.Idempotent()}, then: func(int) endpoint.Handler { return hang }},
		{name: "a tighter context", outer: time.Second, opts: []endpoint.Option{endpoint.Idempotent()}, then: func(int) endpoint.Handler { return hang }},
		{name: "refused", then: func(int) endpoint.Handler { return fail(errDraining) }},
		{name: "refused, then late", then: func(n int) endpoint.Handler {
			return []endpoint.Handler{fail(errDraining), after(2*bound, errDraining), fail(errDraining)}[n]
		}},
		{name: "late", then: func(int) endpoint.Handler { return after(2*bound, nil) }},
		{name: "late and refused", then: func(int) endpoint.Handler { return after(2*bound, errDraining) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := map[string]made{}
			for name, mw := range within(tc.policy) {
				synctest.Test(t, func(t *testing.T) {
					var m made
					h := func(ctx context.Context, c *endpoint.Call) (any, error) {
						d, _ := ctx.Deadline()
						m.deadlines = append(m.deadlines, time.Until(d).Round(time.Second/2)) // pauses are random
						reply, err := tc.then(c.Attempt)(ctx, c)
						m.ends, m.causes = append(m.ends, fmt.Sprint(ctx.Err())), append(m.causes, fmt.Sprint(context.Cause(ctx)))
						return reply, err
					}
					ctx := t.Context()
					if tc.outer > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tc.outer)
						defer cancel()
					}
					start := time.Now()
					_, err := caller(h, append(tc.opts, mw)...)(ctx, &addRequest{})
					m.took = time.Since(start).Round(time.Second / 2)
					if e, ok := errors.AsType[*endpoint.Error](err); ok {
						m.err = fmt.Sprint(e, e.Code, e.Reason(), e.Outcome())
						if _, listed := errors.AsType[*middleware.RetryError](e); !listed {
							m.cause = fmt.Sprint(e.Unwrap())
						}
					}
					got[name] = m
				})
			}
			assert.True(t, len(got["two"].deadlines) > 0)
			assert.Equal(t, got["one"], got["two"])
		})
	}
}

func TestAllocsStackTimeoutAroundRetry(t *testing.T) {
	mw := middleware.Client(middleware.Defaults{Timeout: time.Second, Retry: &middleware.RetryPolicy{}})
	assert.Equal(t, extra(t, wait, mw, endpoint.Idempotent()), 1, "one context for both")
}
