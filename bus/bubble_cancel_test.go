package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// The tests in this file run in bubbles, too: what becomes of calls whose callers leave.

// cause is why a handler's context ended, and when.
type cause struct {
	err error
	at  time.Time
}

// obedient serves a handler that waits for the end of its context.
func obedient(causes chan<- cause) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		causes <- cause{context.Cause(ctx), time.Now()}
		return nil, ctx.Err()
	}
}

// leaving calls, and leaves after a while.
func leaving(call endpoint.Unary[[]byte, []byte], after time.Duration) chan error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	time.AfterFunc(after, cancel)
	out := make(chan error, 1)
	go func() {
		defer cancel()
		_, err := call(ctx, nil)
		out <- err
	}()
	return out
}

// A caller that leaves ends the handler's context: one way later, or, where it left before the ack, as soon as that is there.
func TestCancelAtAnyMoment(t *testing.T) {
	for _, lag := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		acked := 4*lag + 10*time.Millisecond // the request's way, 10 ms, the ack's
		for when := time.Millisecond / 2; when < acked+30*time.Millisecond; when += 3 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t)
				causes := make(chan cause, 1)
				serve(t, service, "svc.slow", rawEndpoint(obedient(causes)))
				distance(n, lag, "service", "caller")
				start := time.Now()
				failed(t, <-leaving(echoer(caller, "svc.slow"), when), endpoint.Canceled, "", endpoint.MaybeExecuted)
				assert.Equal(t, time.Since(start).String(), when.String())
				c := <-causes
				assert.ErrorIs(t, c.err, endpoint.Canceled)
				took := c.at.Sub(start) - max(when, acked)
				assert.Equal(t, took.String(), (2 * lag).String(), fmt.Sprint("left after ", when, ", acked after ", acked))
				time.Sleep(5 * time.Second)
				assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched()+service.Acked(), 0)
			})
		}
	}
}

// Callers that leave one by one cost no message each: what comes together within 10 ms goes together.
func TestCancelsGoTogether(t *testing.T) {
	const calls = 2000
	for name, spread := range map[string]time.Duration{"at once": 0, "over a second": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t)
				causes := make(chan cause, calls)
				serve(t, service, "svc.slow", rawEndpoint(obedient(causes), endpoint.Concurrency(calls)))
				distance(n, 5*time.Millisecond, "service", "caller")
				var frames, named atomic.Int32
				tap(t, n, wire.VerbCancel, func(m *nats.Msg) {
					frames.Add(1)
					named.Add(1)
					for range wire.Calls(m.Data) {
						named.Add(1)
					}
				})
				start := time.Now()
				left := each(calls, func(i int) chan error {
					return leaving(echoer(caller, "svc.slow"), time.Second+time.Duration(i)*spread/calls)
				})
				for i, l := range left {
					failed(t, <-l, endpoint.Canceled, "", endpoint.MaybeExecuted)
					c := <-causes
					assert.ErrorIs(t, c.err, endpoint.Canceled)
					late := c.at.Sub(start) - time.Second - time.Duration(i)*spread/calls
					assert.True(t, spread == 0 || late <= 50*time.Millisecond, late.String())
				}
				time.Sleep(5 * time.Second)
				assert.Equal(t, named.Load(), int32(calls))
				assert.True(t, int64(frames.Load()) <= int64(2+spread/(10*time.Millisecond)+calls/wire.MaxCalls), fmt.Sprint(frames.Load()))
				assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched()+service.Acked(), 0)
			})
		})
	}
}

// Callers leave while the network is not there, with calls that are acked and calls that are not: they leave at once, what can
// still be canceled is, and nothing stays behind.
func TestCancelInBadWeather(t *testing.T) {
	for name, c := range map[string]struct {
		spoil    func(n *bustest.Net)
		canceled bool // of the handlers at least those whose calls were acked; else they have their deadlines
	}{
		"the caller can't speak":     {func(n *bustest.Net) { n.Link("caller").Up.Freeze() }, true},
		"the caller hears nothing":   {func(n *bustest.Net) { n.Link("caller").Down.Freeze() }, true},
		"the caller is cut off":      {func(n *bustest.Net) { kill(n, "caller") }, false},
		"the instance is stopped":    {func(n *bustest.Net) { n.Link("service").Down.Freeze() }, true},
		"the instance is not heard":  {func(n *bustest.Net) { n.Link("service").Up.Freeze() }, true},
		"the instance is cut off":    {func(n *bustest.Net) { kill(n, "service") }, false},
		"the broker is started anew": {func(n *bustest.Net) { _ = n.Server.Restart() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t)
				causes := make(chan cause, 200)
				serve(t, service, "svc.slow", rawEndpoint(obedient(causes), endpoint.Concurrency(200)))
				distance(n, 5*time.Millisecond, "service", "caller")
				call := echoer(caller, "svc.slow")
				var left []chan error
				for range 50 {
					left = append(left, leaving(call, 2*time.Second))
				}
				time.Sleep(time.Second)
				acked := len(left)
				time.AfterFunc(11*time.Millisecond, func() { c.spoil(n) }) // the requests are there, their acks are not
				for range 50 {
					left = append(left, leaving(call, time.Second))
				}
				time.Sleep(time.Second)
				for _, l := range left {
					err := <-l
					assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted, err.Error())
				}
				time.Sleep(time.Second)
				n.Link("caller").Mend()
				n.Link("service").Mend()
				time.Sleep(time.Minute)
				canceled := 0
				for range len(causes) {
					if errors.Is((<-causes).err, endpoint.Canceled) {
						canceled++
					}
				}
				assert.True(t, !c.canceled || canceled >= acked, fmt.Sprint(canceled, " canceled"))
				assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched()+service.Acked(), 0)
				assert.Equal(t, statsOf(t, service, "svc.slow").InFlight, int64(0))
			})
		})
	}
}
