package endpoint_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type valueKey struct{}

func TestWithValues(t *testing.T) {
	why := errors.New("why")
	c, ctx := begin(t.Context(), endpoint.ClientSide, time.Now().Add(time.Hour))
	defer c.End()
	valued := endpoint.WithValues(ctx, context.WithValue(ctx, valueKey{}, 42))
	valued = endpoint.WithValues(valued, context.WithValue(valued, headerKey{}, "x"))
	assert.Equal(t, valued.Value(valueKey{}), any(42))

	want, _ := ctx.Deadline()
	deadline, done := endpoint.Wait(valued)
	assert.True(t, deadline.Equal(want), "the deadline")
	assert.True(t, done == t.Context().Done(), "nothing is made for the caller's own context")

	bounded, release := endpoint.WithDeadline(valued, time.Now().Add(time.Minute), nil)
	_, done = endpoint.Wait(bounded)
	assert.True(t, done == t.Context().Done(), "nor for one below it")
	release()

	child, stop := context.WithCancel(valued)
	defer stop()
	c.Cancel(why)
	<-valued.Done()
	<-child.Done()
	assert.ErrorIs(t, valued.Err(), context.Canceled)
	assert.Equal(t, context.Cause(valued), why)
	assert.Equal(t, context.Cause(child), why)
	_, done = endpoint.Wait(valued)
	<-done
}

type headerKey struct{}

func TestWithValuesAllocs(t *testing.T) {
	sum := caller(trivial, endpoint.Timeout(1e12), endpoint.Middleware(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			valued := endpoint.WithValues(ctx, ctx)
			endpoint.Wait(valued)
			return next(valued, c)
		}
	}))
	assert.Equal(t, allocs(t, func() { _, _ = sum(t.Context(), request) }), 2, "the Call and the values")
}
