package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestRateLimitServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		serve(t, m, "svc.add", endpoint.New(add, middleware.RateLimit(rate.NewLimiter(10, 2))))
		call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.Retry(middleware.RetryPolicy{}))
		for range 2 {
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		_, err := call(t.Context(), &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.ResourceExhausted)
		assert.Equal(t, e.Reason(), endpoint.ReasonRateLimited)
		assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
		assert.Equal(t, e.RetryAfter, 100*time.Millisecond)
		assert.True(t, e.Remote(), "remote")
		time.Sleep(e.RetryAfter)
		_, err = call(t.Context(), &addRequest{})
		assert.NoError(t, err, "after RetryAfter")
	})
}

func TestRateLimitClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(ok, middleware.Retry(middleware.RetryPolicy{}), middleware.RateLimit(rate.NewLimiter(1, 1)))
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		_, err = call(t.Context(), &addRequest{})
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.ResourceExhausted)
		assert.Equal(t, e.Reason(), endpoint.ReasonLocalLimit)
		assert.Equal(t, e.Outcome(), endpoint.NotSent)
		assert.Equal(t, e.RetryAfter, time.Second)
	})
}

func TestRateLimitRefusesBeforeDecoding(t *testing.T) {
	c := newCall(endpoint.ServerSide)
	c.SetBody([]byte("not json"), "application/json", nil)
	h := middleware.RateLimit(rate.NewLimiter(0, 0))(func(_ context.Context, c *endpoint.Call) (any, error) { return c.Message() })
	_, err := h(t.Context(), c)
	assert.ErrorIs(t, err, endpoint.ResourceExhausted)
}

type limiter struct{}

func (limiter) Allow() bool { return false }

type advisor struct{ limiter }

func (advisor) RetryAfter() time.Duration { return 7 * time.Second }

func TestRateLimitAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used := func(l *rate.Limiter) *rate.Limiter {
			for l.Allow() {
			}
			return l
		}
		for _, tc := range []struct {
			name string
			l    middleware.Limiter
			want time.Duration
		}{
			{"no advice", limiter{}, 0},
			{"its own", advisor{}, 7 * time.Second},
			{"a token bucket", used(rate.NewLimiter(rate.Every(time.Minute), 5)), time.Minute},
			{"no rate", used(rate.NewLimiter(0, 5)), 0},
			{"no burst", rate.NewLimiter(5, 0), 0},
			{"a rate next to nothing", used(rate.NewLimiter(1e-300, 1)), 0},
			{"soon", used(rate.NewLimiter(1e5, 1)), time.Millisecond},
		} {
			_, err := caller(ok, middleware.RateLimit(tc.l))(t.Context(), &addRequest{})
			e, _ := errors.AsType[*endpoint.Error](err)
			assert.Equal(t, e.RetryAfter, tc.want, tc.name)
		}
	})
}
