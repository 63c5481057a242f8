package endpoint_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := serve(t, endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			time.Sleep(time.Second)
			endpoint.FromContext(ctx).Reply.Set("a", "b")
			return add(ctx, r)
		}))
		slow := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				time.Sleep(2 * time.Second)
				return next(ctx, c)
			}
		}
		sum := caller(m, endpoint.With(slow))
		ctx, report := endpoint.Observe(t.Context())
		_, err := sum(ctx, request)
		assert.NoError(t, err)
		assert.Equal(t, []time.Duration{report.Wait, report.Total}, []time.Duration{2 * time.Second, 3 * time.Second})
		assert.Equal(t, []int{report.Attempts, report.RequestSize, report.ReplySize}, []int{1, 13, 9})
		assert.Equal(t, report.Reply.Get("A"), "b")
		first := *report
		_, _ = sum(ctx, &addRequest{A: 100000, B: 13})
		assert.Equal(t, *report, first, "later calls leave it alone")

		ctx, report = endpoint.Observe(t.Context())
		_, err = caller(m, refuse(endpoint.Aborted))(ctx, request)
		assert.ErrorIs(t, err, endpoint.Aborted)
		assert.Equal(t, report.Attempts, 0)
	})
}

func TestObserveAfterAPanic(t *testing.T) {
	ctx, report := endpoint.Observe(t.Context())
	_, err := caller(transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		c.SetInstance("i")
		panic("mine")
	}))(ctx, request)
	assert.ErrorIs(t, err, endpoint.Internal)
	assert.Equal(t, report.Instance, "i", "the call was ended")
}
