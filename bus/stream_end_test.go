package bus_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// How streams end when something ends beneath them, and how soon.

// The broker restarts: all streams end at both ends, the callers' at once, and when it is back the next ones work.
func TestStreamsWhenTheBrokerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		latency(n)
		causes := stuckStreams(t, service)
		serve(t, service, "svc.count", endpoint.NewServerStream(count))
		done := make(chan error, 3)
		for _, call := range kinds(caller) {
			go func() { done <- call(context.Background()) }()
		}
		time.Sleep(2500 * time.Millisecond)
		assert.Equal(t, service.Streams(), 3)
		start := time.Now()
		assert.NoError(t, n.Server.Restart())
		for range 3 {
			failed(t, <-done, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
		}
		assert.True(t, time.Since(start) <= 200*time.Millisecond, time.Since(start).String())
		for range 3 {
			c := <-causes
			assert.ErrorIs(t, c.err, endpoint.Unavailable)
			assert.True(t, c.at.Sub(start) <= 200*time.Millisecond, c.at.Sub(start).String())
		}
		time.Sleep(5 * time.Second) // the longest delay before they are back
		sums, err := collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: 200}))
		assert.NoError(t, err, "the next call works")
		assert.Equal(t, sums, upTo(200, 1))
		clean(t, service, caller)
	})
}

// While a service drains, its streams go on, and new ones go to others. When its time is up, those of all kinds end.
func TestStreamsOfAllKindsAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		latency(n)
		other := n.Connect("other", quiet())
		causes := stuckStreams(t, service)
		done := make(chan error, 3)
		for _, call := range kinds(caller) {
			go func() { done <- call(context.Background()) }()
		}
		time.Sleep(time.Second)
		serve(t, other, "svc.double", endpoint.NewBidiStream(double))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		start := time.Now()
		stopped := make(chan error, 3)
		for _, name := range []string{"tail", "total", "double"} {
			go func() { stopped <- service.Stop(ctx, "svc."+name) }()
		}
		time.Sleep(time.Second)
		for range 10 {
			ctx, report := endpoint.Observe(t.Context())
			sums, err := collect(doubler(caller, "svc.double")(ctx, numbers(100)))
			assert.NoError(t, err)
			assert.Equal(t, sums, upTo(100, 2))
			assert.Equal(t, report.Instance, other.ID())
		}
		assert.Equal(t, service.Streams(), 3)
		for range 3 {
			failed(t, <-done, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.Executed)
			c := <-causes
			assert.ErrorIs(t, c.err, endpoint.Unavailable)
			assert.Equal(t, c.at.Sub(start), 10*time.Second)
			assert.NoError(t, <-stopped)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, service.Streams()+caller.Slots(), 0)
	})
}

// Who leaves the loop ends the handler, by the figure within 50 ms, and with a cause that says why.
func TestStreamCancelIsQuick(t *testing.T) {
	service, caller, _ := pair(t)
	causes := make(chan cause, 1)
	serve(t, service, "svc.endless", endpoint.NewServerStream(endless(causes)))
	took := make([]time.Duration, scaled(20, 1000))
	for i := range took {
		var left time.Time
		for v, err := range counter(caller, "svc.endless")(t.Context(), &AddRequest{}) {
			assert.NoError(t, err)
			if v.Sum == i%150 {
				left = time.Now()
				break
			}
		}
		c := <-causes
		assert.ErrorIs(t, c.err, endpoint.Canceled)
		assert.Contains(t, c.err.Error(), "the caller gave up")
		took[i] = c.at.Sub(left)
	}
	slices.Sort(took)
	worst := took[len(took)-1]
	t.Logf("of %d handlers half ended within %v of the break, all within %v", len(took), took[len(took)/2], worst)
	assert.True(t, !full() || worst <= 50*time.Millisecond, worst.String())
	nothingLeft(t, service, caller)
}
