package middleware_test

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestConcurrency(t *testing.T) {
	for side, want := range map[endpoint.Side]struct {
		reason  string
		outcome endpoint.Outcome
	}{
		endpoint.ClientSide: {endpoint.ReasonLocalLimit, endpoint.NotSent},
		endpoint.ServerSide: {endpoint.ReasonBacklogFull, endpoint.NotExecuted},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := middleware.Concurrency(2)(hang)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					_, err := h(ctx, newCall(side))
					assert.ErrorIs(t, err, endpoint.Canceled)
				})
			}
			synctest.Wait()
			_, err := h(ctx, newCall(side))
			e, _ := errors.AsType[*endpoint.Error](err)
			assert.Equal(t, e.Code, endpoint.ResourceExhausted)
			assert.Equal(t, e.Reason(), want.reason)
			assert.Equal(t, e.Outcome(), want.outcome)
			assert.Equal(t, e.RetryAfter, 10*time.Millisecond)
			cancel()
			wg.Wait()
			_, err = h(ctx, newCall(side))
			assert.ErrorIs(t, err, endpoint.Canceled, "there is room again")
		})
	}
}

// TestConcurrencyRetry: what a server's bulkhead refuses may be tried again, what one's own does may not.
func TestConcurrencyRetry(t *testing.T) {
	slow := func(ctx context.Context, r *addRequest) (*addResponse, error) {
		time.Sleep(time.Duration(r.A) * time.Millisecond)
		return add(ctx, r)
	}
	for _, tc := range []struct {
		name           string
		server, client endpoint.Middleware
		attempts       int
		code           endpoint.Code
	}{
		{"server", middleware.Concurrency(1), endpoint.Chain(), 2, endpoint.OK},
		{"client", endpoint.Chain(), middleware.Concurrency(1), 0, endpoint.ResourceExhausted},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := endpoint.NewMux()
			serve(t, m, "svc.add", endpoint.New(slow, tc.server))
			call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.Retry(middleware.RetryPolicy{}), tc.client)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := call(t.Context(), &addRequest{A: 9})
				assert.NoError(t, err)
			})
			time.Sleep(time.Millisecond)
			ctx, report := endpoint.Observe(t.Context())
			_, err := call(ctx, &addRequest{})
			assert.Equal(t, endpoint.CodeOf(err), tc.code, tc.name)
			assert.Equal(t, report.Attempts, tc.attempts, tc.name)
			wg.Wait()
		})
	}
}

// TestConcurrencyGivesBack: whatever a call does, its place is free afterwards, once.
func TestConcurrencyGivesBack(t *testing.T) {
	h := middleware.Concurrency(1)(func(_ context.Context, c *endpoint.Call) (any, error) {
		switch c.Header.Get("do") {
		case "panic":
			panic("bug")
		case "goexit":
			runtime.Goexit()
		case "fail":
			return nil, errDraining
		}
		return reply, nil
	})
	run := func(do string) error {
		c := newCall(endpoint.ServerSide)
		c.Header.Set("do", do)
		err := errors.New("it did not return")
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }()
			_, err = h(t.Context(), c)
		})
		wg.Wait()
		return err
	}
	for _, do := range []string{"panic", "goexit", "fail", "panic", "goexit", "fail", "fail"} {
		_ = run(do)
		assert.NoError(t, run(""), do)
	}
	// Were a place given back twice, two would fit by now.
	synctest.Test(t, func(t *testing.T) {
		inner, release := 0, make(chan struct{})
		h := middleware.Concurrency(1)(func(context.Context, *endpoint.Call) (any, error) {
			inner++
			<-release
			return reply, nil
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _, _ = h(t.Context(), newCall(endpoint.ServerSide)) })
			synctest.Wait()
		}
		assert.Equal(t, inner, 1)
		close(release)
		wg.Wait()
	})
}

// TestConcurrencyStream: a stream holds its place for as long as it lasts, on either side.
func TestConcurrencyStream(t *testing.T) {
	tick := func(ctx context.Context, _ *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) {
			for i := range 3 {
				if !yield(&addResponse{Sum: i}, nil) || ctx.Err() != nil {
					return
				}
			}
		}
	}
	for _, side := range []func(...endpoint.Middleware) endpoint.Middleware{endpoint.OnServer, endpoint.OnClient} {
		synctest.Test(t, func(t *testing.T) {
			m := endpoint.NewMux()
			m.Use(side(middleware.Concurrency(1)))
			serve(t, m, "svc.tick", endpoint.NewServerStream(tick))
			ticks := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.tick")
			for range 3 { // one after the other
				n := 0
				for _, err := range ticks(t.Context(), &addRequest{}) {
					assert.NoError(t, err)
					if n++; n == 3 {
						continue // the handler may have ended
					}
					for _, err := range ticks(t.Context(), &addRequest{}) {
						assert.ErrorIs(t, err, endpoint.ResourceExhausted, "while another one goes on")
					}
				}
				assert.Equal(t, n, 3)
				synctest.Wait()
			}
			for range ticks(t.Context(), &addRequest{}) {
				break // the consumer leaves
			}
			synctest.Wait()
			for _, err := range ticks(t.Context(), &addRequest{}) {
				assert.NoError(t, err)
			}
		})
	}
}

func TestConcurrencyFaults(t *testing.T) {
	for _, n := range []int{0, -1} {
		_, err := caller(ok, middleware.Concurrency(n))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.InvalidArgument)
		assert.Contains(t, err.Error(), "Concurrency")
	}
}

// TestConcurrencyParallel: never more than n inside, and nobody is refused while there is room.
func TestConcurrencyParallel(t *testing.T) {
	const n, workers, each = 4, 16, 2000
	var inside, passed atomic.Int64
	mw := middleware.Concurrency(n)
	h := mw(func(context.Context, *endpoint.Call) (any, error) {
		if inside.Add(1) > n {
			t.Error("too many inside")
		}
		runtime.Gosched()
		inside.Add(-1)
		passed.Add(1)
		return reply, nil
	})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				_, _ = h(t.Context(), newCall(endpoint.ClientSide))
			}
		})
	}
	wg.Wait()
	assert.True(t, passed.Load() >= each, "some passed")
	passed.Store(0)
	for range n { // as many as fit are never refused
		wg.Go(func() {
			for range each {
				_, _ = h(t.Context(), newCall(endpoint.ClientSide))
			}
		})
	}
	wg.Wait()
	assert.Equal(t, passed.Load(), n*each)
}

func TestAllocsConcurrency(t *testing.T) {
	assert.True(t, extra(t, wait, middleware.Concurrency(1)) <= 0, "nothing")
	c := newCall(endpoint.ServerSide)
	mw := middleware.Concurrency(1)
	inner := mw(instant)
	refused := -1.0
	h := mw(func(ctx context.Context, _ *endpoint.Call) (any, error) {
		refused = testing.AllocsPerRun(1000, func() { _, _ = inner(ctx, c) })
		return reply, nil
	})
	_, err := h(t.Context(), newCall(endpoint.ServerSide))
	assert.NoError(t, err)
	assert.Equal(t, refused, 0, "not even a refusal")
}
