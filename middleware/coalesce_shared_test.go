package middleware_test

import (
	"context"
	"errors"
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

func TestCoalesceSharesFailures(t *testing.T) {
	theirs := endpoint.NotFound.New("no such sum").With(map[string]int{"a": 1})
	for name, tc := range map[string]struct {
		fail   func()
		err    error
		code   endpoint.Code
		reason string
	}{
		"an error": {err: theirs, code: endpoint.NotFound},
		"a panic":  {fail: func() { panic("boom") }, code: endpoint.Internal, reason: endpoint.ReasonPanic},
		"goexit":   {fail: runtime.Goexit, code: endpoint.Internal, reason: endpoint.ReasonPanic},
	} {
		t.Run(name, func(t *testing.T) {
			bothSides(t, func(t *testing.T, side endpoint.Side) {
				t.Helper()
				var began atomic.Int64
				// What fails is a middleware inside of Coalesce: a panic of the handler would be an error there already.
				failing := func(next endpoint.Handler) endpoint.Handler {
					return func(ctx context.Context, c *endpoint.Call) (any, error) {
						began.Add(1)
						reply, err := next(ctx, c)
						if tc.fail != nil {
							tc.fail()
						}
						return reply, err
					}
				}
				call := place(t, side, endpoint.Chain(middleware.Coalesce(nil), failing), func(context.Context, *addRequest) (*addResponse, error) {
					time.Sleep(time.Second)
					return &addResponse{}, tc.err
				})
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						_, err := call(t.Context(), &addRequest{})
						e, _ := errors.AsType[*endpoint.Error](err)
						assert.Equal(t, e.Code, tc.code)
						assert.Equal(t, e.Reason(), tc.reason)
						assert.Equal(t, len(e.Details) == 1, tc.err != nil)
						if p, ok := errors.AsType[*endpoint.PanicError](err); side == endpoint.ClientSide && name == "a panic" {
							assert.True(t, ok && p.Value == "boom", "the panic's value, for the log")
						}
						if side == endpoint.ServerSide || tc.fail == nil {
							assert.Equal(t, e.Outcome(), endpoint.Executed, "it was, on behalf of all")
						}
					})
				}
				wg.Wait()
				assert.Equal(t, began.Load(), 1)
			})
		})
	}
}

// A reply of the wrong type fails all, a reply that can't be encoded only those who need its bytes.
func TestCoalesceReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wrong := range []any{"text", nil, (*addResponse)(nil), []int{}} {
			call := caller(func(context.Context, *endpoint.Call) (any, error) {
				time.Sleep(time.Second)
				return wrong, nil
			}, endpoint.ReadOnly(), middleware.Coalesce(nil))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					_, err := call(t.Context(), &addRequest{})
					assert.ErrorIs(t, err, endpoint.Internal)
				})
			}
			wg.Wait()
		}
		fake := endpoint.Caller[*addRequest, *badRequest](transport(func(context.Context, *endpoint.Call) (any, error) {
			time.Sleep(time.Second)
			return &badRequest{A: 1}, nil
		}), "svc.add", endpoint.ReadOnly(), middleware.Coalesce(nil))
		var good atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := fake(t.Context(), &addRequest{}); err == nil {
					good.Add(1)
				} else {
					assert.Equal(t, reasonOf(err), endpoint.ReasonEncode)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, good.Load(), 1)
	})
}

// A peer whose clock is a little ahead says that the time is up before we do.
func TestCoalesceCloseCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			early  time.Duration
			flight int64
		}{{time.Millisecond, 2}, {100 * time.Millisecond, 1}} {
			var began atomic.Int64
			call := caller(func(ctx context.Context, _ *endpoint.Call) (any, error) {
				began.Add(1)
				d, bounded := ctx.Deadline()
				if !bounded {
					return reply, nil
				}
				time.Sleep(time.Until(d) - tc.early)
				return nil, endpoint.DeadlineExceeded.New("theirs").AsRemote()
			}, endpoint.ReadOnly(), middleware.Coalesce(nil))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := call(ctx, &addRequest{})
				assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
			})
			synctest.Wait()
			wg.Go(func() {
				_, err := call(t.Context(), &addRequest{})
				assert.Equal(t, err == nil, tc.flight == 2)
			})
			wg.Wait()
			cancel()
			assert.Equal(t, began.Load(), tc.flight)
		}
	})
}

// Retry inside of a flight takes charge of it; outside, the attempts fly.
func TestCoalesceWithRetry(t *testing.T) {
	for name, mws := range map[string][]endpoint.Middleware{
		"inside":  {middleware.Coalesce(nil), middleware.Retry(middleware.RetryPolicy{Attempts: 3})},
		"outside": {middleware.Retry(middleware.RetryPolicy{Attempts: 3}), middleware.Coalesce(nil), middleware.Retry(middleware.RetryPolicy{Attempts: 3})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tries atomic.Int64
				call := caller(func(context.Context, *endpoint.Call) (any, error) {
					tries.Add(1)
					return nil, endpoint.Unavailable.New("").WithOutcome(endpoint.Executed)
				}, endpoint.ReadOnly(), endpoint.With(mws...))
				ctx, report := endpoint.Observe(t.Context())
				_, err := call(ctx, &addRequest{})
				assert.ErrorIs(t, err, endpoint.Unavailable)
				assert.Equal(t, tries.Load(), 3)
				assert.Equal(t, report.Attempts, 3)
			})
		})
	}
}
