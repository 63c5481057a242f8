package endpoint_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestWithDeadline(t *testing.T) {
	cause := errors.New("the bound passed")
	synctest.Test(t, func(t *testing.T) {
		ctx, release := endpoint.WithDeadline(t.Context(), time.Now().Add(time.Second), cause)
		defer release()
		d, ok := ctx.Deadline()
		assert.True(t, ok, "a deadline")
		assert.Equal(t, time.Until(d), time.Second)
		assert.NoError(t, ctx.Err())
		time.Sleep(time.Second)
		assert.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		assert.Equal(t, context.Cause(ctx), cause)
		<-ctx.Done()
	})
	synctest.Test(t, func(t *testing.T) {
		outer, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, release := endpoint.WithDeadline(outer, time.Now().Add(time.Minute), cause)
		defer release()
		<-ctx.Done()
		assert.Equal(t, context.Cause(ctx), context.DeadlineExceeded, "the parent's deadline is not ours")
	})
	ctx, release := endpoint.WithDeadline(t.Context(), time.Now().Add(time.Hour), cause)
	release()
	<-ctx.Done()
	assert.ErrorIs(t, ctx.Err(), context.Canceled)
}

func TestWithDeadlineBelowACall(t *testing.T) {
	bound := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			at := time.Now().Add(time.Second)
			own, release := endpoint.WithDeadline(ctx, at, errors.New("why"))
			deadline, done := endpoint.Wait(own)
			assert.Equal(t, deadline, at)
			assert.True(t, done == t.Context().Done(), "nothing is made for the caller's own contexts")
			release()
			_, done = endpoint.Wait(own)
			<-done
			return next(ctx, c)
		}
	}
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("svc.nop", endpoint.New(func(context.Context, *struct{}) (*struct{}, error) { return &struct{}{}, nil })))
	_, err := endpoint.Caller[*struct{}, *struct{}](m, "svc.nop", endpoint.Middleware(bound))(t.Context(), &struct{}{})
	assert.NoError(t, err)
}

func TestTakeRetries(t *testing.T) {
	c := endpoint.NewCall(endpoint.New(func(context.Context, *struct{}) (*struct{}, error) { return nil, nil }).Spec(), "svc.nop", endpoint.ClientSide)
	assert.True(t, c.TakeRetries(), "the first")
	assert.True(t, !c.TakeRetries(), "the second")
	assert.True(t, !c.Retry().TakeRetries(), "an attempt's")
}

// A bound that is set before the call, as a bridge does, costs no channel either; but one on the context of another call does,
// which its transport may cancel.
func TestWithDeadlineAboveACall(t *testing.T) {
	t.Run("without a cause", func(t *testing.T) { aboveACall(t, nil) })
	t.Run("with a cause", func(t *testing.T) { aboveACall(t, errors.New("why")) })
}

func aboveACall(t *testing.T, cause error) {
	t.Helper()
	outer, cancel := context.WithCancel(t.Context())
	defer cancel()
	at := time.Now().Add(time.Hour)
	first, release := endpoint.WithDeadline(outer, at.Add(time.Hour), cause)
	defer release()
	bound, release := endpoint.WithDeadline(first, at, cause)
	defer release()
	c, own := begin(bound, endpoint.ClientSide, time.Time{})
	defer c.End()
	deadline, done := endpoint.Wait(own)
	assert.Equal(t, deadline, at)
	assert.True(t, done == outer.Done(), "that of the outermost")

	below, release := endpoint.WithDeadline(own, at.Add(-time.Minute), cause)
	defer release()
	inner, ctx := begin(below, endpoint.ClientSide, time.Time{})
	defer inner.End()
	_, done = endpoint.Wait(ctx)
	c.Cancel(context.Canceled)
	<-done
}
