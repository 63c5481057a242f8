package endpoint_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// looks notes what time a middleware is told, and goes on at once.
func looks(at *time.Time) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			*at = c.Now()
			return next(ctx, c)
		}
	}
}

func atOnce(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		c.AtOnce()
		return next(ctx, c)
	}
}

// dozes knows nothing of the time that is handed on, and takes a second.
func dozes(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		time.Sleep(time.Second)
		return next(ctx, c)
	}
}

func TestNowIsHandedOn(t *testing.T) {
	var first, second, last time.Time
	received := time.Time{}
	inner := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
		last, received = c.Now(), c.Received()
		return fixed, nil
	})
	mws := endpoint.With(looks(&first), endpoint.OnServer(dozes), atOnce, endpoint.OnClient(looks(&second)))
	_, err := caller(inner, mws)(t.Context(), request)
	assert.NoError(t, err)
	assert.Equal(t, []time.Time{first, second, last}, []time.Time{received, received, received}, "one reading for all")
}

func TestNowIsNotHandedPastOthers(t *testing.T) {
	for name, mws := range map[string][]endpoint.Middleware{
		"outermost": {dozes}, "between": {atOnce, dozes, atOnce}, "innermost": {atOnce, dozes}, "twice": {dozes, noop, dozes},
		"after a pause": {atOnce, func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				before := c.Now()
				time.Sleep(time.Second)
				assert.Equal(t, c.Now().Sub(before), time.Second, "a second look is one")
				return next(ctx, c)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
					assert.Equal(t, time.Since(c.Now()), 0)
					return fixed, nil
				})
				_, err := caller(inner, endpoint.With(mws...))(t.Context(), request)
				assert.NoError(t, err)
			})
		})
	}
}

// After next returned, and in another attempt, the time that was handed on is an old one.
func TestNowIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		again := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				_, err := next(ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, time.Since(c.Now()), 0, "after next")
				time.Sleep(time.Second)
				a := c.Retry()
				reply, err := next(ctx, a)
				c.Adopt(a)
				return reply, err
			}
		}
		inner := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
			assert.Equal(t, time.Since(c.Now()), 0, "in an attempt")
			time.Sleep(time.Second)
			return fixed, nil
		})
		_, err := caller(inner, endpoint.With(again, atOnce))(t.Context(), request)
		assert.NoError(t, err)
	})
}

// slow is a codec that takes a second.
type slow struct{ codec.Codec }

func (s slow) Append(dst []byte, v any) ([]byte, error) {
	time.Sleep(time.Second)
	return s.Codec.Append(dst, v)
}

func TestNowAfterEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := transportFunc(func(_ context.Context, c *endpoint.Call) (any, error) {
			c.Body()
			assert.Equal(t, time.Since(c.Now()), 0)
			return fixed, nil
		})
		_, err := caller(inner, endpoint.Codec(slow{codec.JSON}))(t.Context(), request)
		assert.NoError(t, err)
	})
}

func TestSetNow(t *testing.T) {
	c := endpoint.NewCall(endpoint.New(add).Spec(), "svc.add", endpoint.ServerSide)
	assert.True(t, time.Since(c.Now()) < time.Hour, "nobody told the time")
	received := time.Now().Add(-time.Hour)
	c.SetReceived(received)
	c.SetNow(received.Add(time.Minute))
	assert.Equal(t, c.Now(), received.Add(time.Minute))
	assert.True(t, c.Now().After(received.Add(time.Minute)), "told once")
}
