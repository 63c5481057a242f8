package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// place puts middleware on one side of svc.add, which answers with h, and gives its caller; both are declared read-only.
func place(t testing.TB, side endpoint.Side, mw endpoint.Middleware, h endpoint.Unary[*addRequest, *addResponse], more ...endpoint.Option) endpoint.Unary[*addRequest, *addResponse] {
	t.Helper()
	m := endpoint.NewMux()
	server, client := []endpoint.Option{endpoint.ReadOnly()}, []endpoint.Option{endpoint.ReadOnly()}
	if side == endpoint.ServerSide {
		server = append(append(server, mw), more...)
	} else {
		client = append(append(client, mw), more...)
	}
	serve(t, m, "svc.add", endpoint.New(h, server...))
	return endpoint.Caller[*addRequest, *addResponse](m, "svc.add", client...)
}

// bothSides runs a test in a bubble for each side.
func bothSides(t *testing.T, f func(t *testing.T, side endpoint.Side)) {
	t.Helper()
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		t.Run(side.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, side) })
		})
	}
}

// slow adds after a second, or ends with its context; it counts how often it began.
type slow struct{ began, canceled atomic.Int64 }

func (s *slow) add(ctx context.Context, r *addRequest) (*addResponse, error) {
	s.began.Add(1)
	endpoint.FromContext(ctx).Reply.Set("tag", fmt.Sprint(r.A))
	if !sleeps(ctx, time.Second) {
		s.canceled.Add(1)
		return nil, ctx.Err()
	}
	return add(ctx, r)
}

func sleeps(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func TestCoalesce(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var s slow
		tag := func(next endpoint.Handler) endpoint.Handler { // outside: everybody's metadata are their own
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				reply, err := next(ctx, c)
				c.Reply.Add("tag", "mine")
				assert.Equal(t, c.Reply.Len(), 2)
				return reply, err
			}
		}
		call := place(t, side, endpoint.Chain(tag, middleware.Coalesce(nil)), s.add)
		var wg sync.WaitGroup
		var attempts atomic.Int64
		start := time.Now()
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				ctx, report := endpoint.Observe(t.Context())
				resp, err := call(ctx, &addRequest{A: i % 2, B: 2})
				assert.NoError(t, err)
				assert.Equal(t, resp.Sum, i%2+2)
				resp.Sum = 99 // each has its own
				assert.Equal(t, report.Reply.Get("tag"), fmt.Sprint(i%2))
				assert.True(t, report.Instance != "", "who served it")
				assert.Equal(t, report.ReplySize, len(`{"Sum":2}`))
				attempts.Add(int64(report.Attempts))
			})
		}
		wg.Wait()
		assert.Equal(t, s.began.Load(), 2, "as many as there are different ones")
		assert.Equal(t, time.Since(start), time.Second+time.Millisecond)
		if side == endpoint.ClientSide {
			assert.Equal(t, attempts.Load(), 2)
		}
		_, err := call(t.Context(), &addRequest{A: 0, B: 2})
		assert.NoError(t, err)
		assert.Equal(t, s.began.Load(), 3, "it keeps nothing")
	})
}

// What the context of a flight holds is released when it is over.
func TestCoalesceReleases(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var flown []context.Context
		inside := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				flown = append(flown, ctx)
				return next(ctx, c)
			}
		}
		_, err := place(t, side, endpoint.Chain(middleware.Coalesce(nil), inside), add)(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.ErrorIs(t, flown[0].Err(), context.Canceled)
	})
}

func TestCoalesceTellsApart(t *testing.T) {
	byTenant := func(_ context.Context, c *endpoint.Call) string { return c.Header.Get("tenant") }
	with := func(kv ...string) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context { return endpoint.WithHeader(ctx, kv...) }
	}
	for name, tc := range map[string]struct {
		key    func(context.Context, *endpoint.Call) string
		a, b   func(context.Context) context.Context
		reqs   [2]addRequest
		flight int64
	}{
		"identical":                {flight: 1},
		"another request":          {reqs: [2]addRequest{{A: 1}, {A: 2}}, flight: 2},
		"a header of one":          {a: with("token", "x"), flight: 2},
		"an empty header of one":   {a: with("token", ""), flight: 2},
		"another value":            {a: with("token", "x"), b: with("token", "y"), flight: 2},
		"another number of values": {a: with("token", "x"), b: with("token", "x", "token", "x"), flight: 2},
		"names and values":         {a: with("ab", "c"), b: with("a", "bc"), flight: 2},
		"in another order":         {a: with("a", "1", "b", "2"), b: with("B", "2", "A", "1"), flight: 1},
		"values in another order":  {a: with("a", "1", "a", "2"), b: with("a", "2", "a", "1"), flight: 2},
		"another trace":            {a: with("traceparent", "x", "Tracestate", "a", "baggage", "b"), b: with("traceparent", "y"), flight: 1},
		"another instance": {
			a: func(ctx context.Context) context.Context { return endpoint.WithInstance(ctx, "one") },
			b: func(ctx context.Context) context.Context { return endpoint.WithInstance(ctx, "two") }, flight: 2,
		},
		"a large one":         {a: with("x", string(make([]byte, 600))), b: with("x", string(make([]byte, 601))), flight: 2},
		"the same key":        {key: byTenant, a: with("tenant", "x", "a", "b"), b: with("tenant", "x"), reqs: [2]addRequest{{A: 1}, {A: 2}}, flight: 1},
		"another key":         {key: byTenant, a: with("tenant", "x"), b: with("tenant", "y"), flight: 2},
		"no key: like no one": {key: byTenant, flight: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var began atomic.Int64
				call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
					began.Add(1)
					return after(time.Second, nil)(ctx, c)
				}, endpoint.ReadOnly(), middleware.Coalesce(tc.key))
				var wg sync.WaitGroup
				for i, f := range []func(context.Context) context.Context{tc.a, tc.b} {
					wg.Go(func() {
						ctx := t.Context()
						if f != nil {
							ctx = f(ctx)
						}
						_, err := call(ctx, &tc.reqs[i])
						assert.NoError(t, err)
					})
				}
				wg.Wait()
				assert.Equal(t, began.Load(), tc.flight)
			})
		})
	}
}

// What is not read-only, and streams, is let through; so is a request that can't be encoded, which says so itself.
func TestCoalescePassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began atomic.Int64
		h := func(ctx context.Context, c *endpoint.Call) (any, error) {
			began.Add(1)
			return after(time.Second, nil)(ctx, c)
		}
		write := caller(h, endpoint.Idempotent(), middleware.Coalesce(nil))
		stream := endpoint.ServerStreamCaller[*addRequest, *addResponse](transport(h), "svc.add", endpoint.ReadOnly(), middleware.Coalesce(nil))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = write(t.Context(), &addRequest{}) })
			wg.Go(func() {
				for range stream(t.Context(), &addRequest{}) {
				}
			})
		}
		wg.Wait()
		assert.Equal(t, began.Load(), 4)
	})
	bad := endpoint.Caller[*badRequest, *addResponse](transport(func(_ context.Context, c *endpoint.Call) (any, error) {
		_, _, err := c.Encoded()
		return nil, err
	}), "svc.add", endpoint.ReadOnly(), middleware.Coalesce(nil))
	_, err := bad(t.Context(), &badRequest{})
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, reasonOf(err), endpoint.ReasonEncode)
}

type badRequest struct{ A int }

func (*badRequest) MarshalJSON() ([]byte, error) { return nil, errors.New("not today") }

// One value for a whole transport, on both sides: a service's call does not wait for that of its own caller.
func TestCoalesceBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := middleware.Coalesce(nil)
		inner, outer := endpoint.NewMux(), endpoint.NewMux()
		inner.Use(both)
		outer.Use(both)
		serve(t, inner, "svc.add", endpoint.New(add, endpoint.ReadOnly()))
		serve(t, outer, "svc.add", endpoint.New(endpoint.Caller[*addRequest, *addResponse](inner, "svc.add", endpoint.ReadOnly()), endpoint.ReadOnly()))
		resp, err := endpoint.Caller[*addRequest, *addResponse](outer, "svc.add", endpoint.ReadOnly())(t.Context(), &addRequest{A: 1})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 1)
	})
}

func TestCoalesceFirstLeaves(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var s slow
		call := place(t, side, middleware.Coalesce(nil), s.add)
		var wg sync.WaitGroup
		start := time.Now()
		first, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := call(first, &addRequest{A: 1})
			assert.ErrorIs(t, err, context.Canceled)
			assert.True(t, endpoint.OutcomeOf(err) == endpoint.MaybeExecuted || side == endpoint.ServerSide && endpoint.OutcomeOf(err) == endpoint.Executed)
			assert.Equal(t, time.Since(start), 500*time.Millisecond)
		})
		synctest.Wait()
		wg.Go(func() {
			resp, err := call(t.Context(), &addRequest{A: 1})
			assert.NoError(t, err)
			assert.Equal(t, resp.Sum, 1)
			assert.Equal(t, time.Since(start), time.Second)
		})
		time.Sleep(500 * time.Millisecond)
		cancel()
		wg.Wait()
		assert.Equal(t, s.began.Load(), 1)
		assert.Equal(t, s.canceled.Load(), 0)
	})
}

// Each leaves at its own deadline. The flight's is that of the first, and those who have more time fly again.
func TestCoalesceDeadlines(t *testing.T) {
	bothSides(t, func(t *testing.T, side endpoint.Side) {
		t.Helper()
		var s slow
		call := place(t, side, middleware.Coalesce(nil), s.add)
		var wg sync.WaitGroup
		start := time.Now()
		for _, tc := range []struct{ deadline, took time.Duration }{
			{900 * time.Millisecond, 900 * time.Millisecond}, // the first
			{300 * time.Millisecond, 300 * time.Millisecond},
			{3 * time.Second, 1900 * time.Millisecond},
			{4 * time.Second, 1900 * time.Millisecond},
			{0, 1900 * time.Millisecond},
		} {
			wg.Go(func() {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if tc.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, tc.deadline)
				}
				defer cancel()
				_, err := call(ctx, &addRequest{A: 1})
				assert.Equal(t, time.Since(start), tc.took)
				assert.Equal(t, errors.Is(err, context.DeadlineExceeded), tc.deadline == tc.took)
				assert.Equal(t, err == nil, tc.deadline != tc.took)
			})
			synctest.Wait()
		}
		wg.Wait()
		assert.Equal(t, s.began.Load(), 2)
		assert.Equal(t, s.canceled.Load(), 1)
	})
}

// A flight that nobody waits for is canceled, with the cause of the last, who waits for its end. Who comes then does not join
// it, and what becomes of it later is nothing to those.
func TestCoalesceAllLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("had enough")
		released := make(chan struct{})
		var began, ended, knew atomic.Int64
		h := middleware.Coalesce(nil)(func(ctx context.Context, c *endpoint.Call) (any, error) {
			if began.Add(1) > 1 {
				return after(time.Second, nil)(ctx, c)
			}
			<-ctx.Done()
			assert.ErrorIs(t, context.Cause(ctx), why)
			<-released // an obstinate handler
			ended.Add(1)
			return nil, endpoint.ContextError(ctx).WithOutcome(endpoint.NotExecuted)
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := h(ctx, readCall(endpoint.ClientSide))
				assert.ErrorIs(t, err, endpoint.Canceled)
				assert.ErrorIs(t, err, why)
				if endpoint.OutcomeOf(err) == endpoint.NotExecuted {
					knew.Add(1)
					assert.Equal(t, ended.Load(), 1, "it waits for the end")
				}
			})
		}
		synctest.Wait()
		cancel(why)
		synctest.Wait()
		for range 2 {
			wg.Go(func() {
				_, err := h(t.Context(), readCall(endpoint.ClientSide))
				assert.NoError(t, err)
			})
			synctest.Wait()
			if ended.Load() == 0 {
				close(released)
				synctest.Wait()
			}
		}
		wg.Wait()
		assert.Equal(t, began.Load(), 2)
		assert.Equal(t, knew.Load(), 1, "the last one")
	})
}

// Who is last and out of time is told so, though the flight was canceled; the handler is told what happened to it.
func TestCoalesceLastOutOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told error
		h := middleware.Coalesce(nil)(func(ctx context.Context, _ *endpoint.Call) (any, error) {
			<-ctx.Done()
			told = ctx.Err()
			return nil, endpoint.ContextError(ctx)
		})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = h(first, readCall(endpoint.ClientSide)) })
		synctest.Wait()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := h(ctx, readCall(endpoint.ClientSide))
			assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		assert.ErrorIs(t, told, context.Canceled)

		for range 20 { // the call's timer and the flight's fire at once
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := h(ctx, readCall(endpoint.ClientSide))
			cancel()
			assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
			assert.ErrorIs(t, told, context.DeadlineExceeded)
		}
	})
}

// A reply that comes although everybody left is still a reply for the last one, as without Coalesce.
func TestCoalesceLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middleware.Coalesce(nil)(after(2*time.Second, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := h(ctx, readCall(endpoint.ClientSide))
		assert.NoError(t, err)
		assert.Equal(t, time.Since(start), 2*time.Second)
		h = middleware.Coalesce(nil)(after(2*time.Second, errDraining))
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = h(ctx, readCall(endpoint.ClientSide))
		assert.Equal(t, reasonOf(err), endpoint.ReasonDraining, "an error that knows more than the context's")
	})
}

// readCall is a bare call of a read-only operation.
func readCall(side endpoint.Side) *endpoint.Call {
	c := newCall(side, endpoint.ReadOnly())
	c.SetBody([]byte(`{}`), "application/json", codec.JSON)
	return c
}
