package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// begin makes a call's own context, as a transport does.
func begin(parent context.Context, side endpoint.Side, deadline time.Time) (*endpoint.Call, context.Context) {
	c := endpoint.NewCall(&endpoint.Spec{}, "a.b", side)
	ctx := c.Begin(parent, deadline)
	return c, ctx
}

func TestCallContextDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, touch := range []bool{false, true} { // lazily and with a real context
			c, ctx := begin(t.Context(), endpoint.ServerSide, time.Now().Add(time.Second))
			if touch {
				ctx.Done()
			}
			assert.NoError(t, ctx.Err())
			time.Sleep(999 * time.Millisecond)
			assert.NoError(t, ctx.Err())
			time.Sleep(time.Millisecond)
			synctest.Wait()
			assert.Equal(t, ctx.Err(), context.DeadlineExceeded)
			<-ctx.Done()
			assert.Equal(t, context.Cause(ctx), context.DeadlineExceeded)
			c.End()
			assert.Equal(t, ctx.Err(), context.DeadlineExceeded, "the first reason stays")
		}
	})
}

func TestCallContextTakesTheSmallerDeadline(t *testing.T) {
	soon, late := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	for _, c := range []struct{ parent, own, want time.Time }{
		{soon, late, soon}, {late, soon, soon}, {soon, time.Time{}, soon}, {time.Time{}, soon, soon}, {time.Time{}, time.Time{}, time.Time{}},
	} {
		parent := t.Context()
		if !c.parent.IsZero() {
			p, cancel := context.WithDeadline(parent, c.parent)
			t.Cleanup(cancel)
			parent = p
		}
		call, ctx := begin(parent, endpoint.ServerSide, c.own)
		got, ok := ctx.Deadline()
		assert.True(t, got.Equal(c.want) && ok == !c.want.IsZero())
		call.End()
	}
}

func TestCallContextCancel(t *testing.T) {
	why := errors.New("why")
	c, ctx := begin(t.Context(), endpoint.ServerSide, time.Time{})
	child, stop := context.WithCancel(ctx)
	defer stop()
	c.Cancel(why)
	<-ctx.Done()
	<-child.Done()
	assert.Equal(t, ctx.Err(), context.Canceled)
	assert.Equal(t, context.Cause(ctx), why)
	assert.Equal(t, context.Cause(child), why)
	c.End()
	assert.Equal(t, context.Cause(ctx), why)
}

func TestCallContextParentEnds(t *testing.T) {
	why := errors.New("why")
	parent, cancel := context.WithCancelCause(t.Context())
	c, ctx := begin(parent, endpoint.ServerSide, time.Now().Add(time.Hour))
	cancel(why)
	assert.Equal(t, ctx.Err(), context.Canceled)
	assert.Equal(t, context.Cause(ctx), why)
	c.End()
}

func TestCallContextAfterEnd(t *testing.T) {
	c, ctx := begin(t.Context(), endpoint.ServerSide, time.Now().Add(time.Hour))
	detached := context.WithoutCancel(ctx)
	c.End()
	assert.Equal(t, ctx.Err(), context.Canceled)
	<-ctx.Done()
	assert.Equal(t, context.Cause(ctx), context.Canceled)
	assert.NoError(t, detached.Err())
	child, stop := context.WithTimeout(ctx, time.Hour)
	defer stop()
	<-child.Done()
}

func TestCallContextAfterFunc(t *testing.T) {
	c, ctx := begin(t.Context(), endpoint.ServerSide, time.Time{})
	ran := make(chan bool, 1)
	context.AfterFunc(ctx, func() { ran <- true })
	stopped := context.AfterFunc(ctx, func() { t.Error("it was stopped") })
	assert.True(t, stopped())
	c.End()
	assert.True(t, <-ran)
}

func TestCallContextFindsItsCall(t *testing.T) {
	type key struct{}
	c, ctx := begin(context.WithValue(t.Context(), key{}, 7), endpoint.ServerSide, time.Time{})
	assert.True(t, endpoint.FromContext(ctx) == c)
	child, stop := context.WithCancel(ctx)
	defer stop()
	assert.True(t, endpoint.FromContext(child) == c)
	assert.Equal(t, ctx.Value(key{}), any(7))
	assert.Equal(t, ctx.Value([]int(nil)), nil)
	assert.Equal(t, fmt.Sprint(ctx), "the context of a call")
	_, client := begin(t.Context(), endpoint.ClientSide, time.Time{})
	assert.True(t, endpoint.FromContext(client) == nil)
	_, nested := begin(ctx, endpoint.ClientSide, time.Time{})
	assert.True(t, endpoint.FromContext(nested) == c, "client middleware sees for whom it calls")
	c.End()
}

func TestCallContextConcurrently(t *testing.T) {
	for range 200 {
		c, ctx := begin(t.Context(), endpoint.ServerSide, time.Now().Add(time.Hour))
		var wg sync.WaitGroup
		wg.Go(func() { <-ctx.Done() })
		wg.Go(func() {
			child, stop := context.WithCancel(ctx)
			defer stop()
			<-child.Done()
		})
		wg.Go(func() { _, _ = ctx.Err(), context.Cause(ctx) })
		wg.Go(func() { c.Cancel(errors.New("why")) })
		wg.Go(c.End)
		wg.Wait()
		assert.Equal(t, ctx.Err(), context.Canceled)
	}
}

func TestWait(t *testing.T) {
	deadline := time.Now().Add(time.Hour)
	client, ctx := begin(context.Background(), endpoint.ClientSide, deadline)
	d, done := endpoint.Wait(ctx)
	assert.True(t, d.Equal(deadline) && done == nil, "nothing but the deadline can end it")
	client.End()

	// A handler's outgoing call ends when the handler's own call is cancelled.
	server, handler := begin(context.Background(), endpoint.ServerSide, time.Time{})
	out, outgoing := begin(handler, endpoint.ClientSide, deadline)
	_, done = endpoint.Wait(outgoing)
	server.Cancel(context.Canceled)
	<-done
	assert.Equal(t, outgoing.Err(), context.Canceled)
	out.End()
	server.End()
	server, handler = begin(context.Background(), endpoint.ServerSide, time.Time{})
	_, done = endpoint.Wait(handler)
	server.Cancel(context.Canceled)
	<-done
	server.End()

	plain, cancel := context.WithTimeout(t.Context(), time.Hour)
	d, done = endpoint.Wait(plain)
	want, _ := plain.Deadline()
	assert.True(t, d.Equal(want))
	cancel()
	<-done
}

func TestContextError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	assert.Equal(t, endpoint.ContextError(ctx).Code, endpoint.DeadlineExceeded, "clocks differ a little")
	why := errors.New("why")
	cancel(why)
	e := endpoint.ContextError(ctx)
	assert.Equal(t, e.Code, endpoint.Canceled)
	assert.ErrorIs(t, e, why)
	assert.ErrorIs(t, e, context.Canceled)
}

// A handler that calls on loses its outgoing call when its own caller leaves.
func TestCancellationGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		back := serve(t, endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}))
		front := serve(t, endpoint.New(caller(back)))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := caller(front)(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, <-ended, context.Canceled)
	})
}

// Who asks at once gets the same channel, and one that is closed when the call ends at that moment.
func TestContextAskedByMany(t *testing.T) {
	for range 200 {
		c, ctx := begin(t.Context(), endpoint.ServerSide, time.Now().Add(time.Hour))
		var got [8]<-chan struct{}
		var g sync.WaitGroup
		for i := range got {
			g.Go(func() { got[i] = ctx.Done() })
		}
		g.Go(c.End)
		g.Wait()
		for _, done := range got {
			assert.True(t, done == got[0], "one for all")
			<-done
		}
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
	}
}
