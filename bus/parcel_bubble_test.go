package bus_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// A message of 4 MiB over a link that takes 1 MiB a second takes some four seconds: time enough for anything to happen.
const (
	cargo     = 4 * mib
	bandwidth = mib
)

// lorry is what the tests call: put has a large request, get a large reply.
type lorry struct {
	put, get endpoint.Unary[[]byte, []byte]
	ran      int
}

// bound are far buses with large messages on slow links.
func bound(t *testing.T) (n *bustest.Net, service, caller *bus.Bus, l *lorry) {
	t.Helper()
	n, service, caller = far(t, bus.WithMaxMessage(8*mib))
	latency(n)
	l = &lorry{put: echoer(caller, "svc.put"), get: echoer(caller, "svc.get")}
	serve(t, service, "svc.put", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		l.ran++
		return r[:10], nil
	}))
	serve(t, service, "svc.get", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
		l.ran++
		return make([]byte, cargo), nil
	}))
	for _, link := range []string{"service", "caller"} {
		n.Link(link).Up.Bandwidth(bandwidth)
		n.Link(link).Down.Bandwidth(bandwidth)
	}
	return n, service, caller, l
}

// settled wants nothing left behind.
func settled(t *testing.T, service, caller *bus.Bus) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched()+service.Streams()+service.Acked(), 0)
	assert.Equal(t, service.Free(), int64(32*mib))
	assert.Equal(t, caller.Free(), int64(32*mib))
	for _, subject := range []string{"svc.put", "svc.get"} {
		assert.Equal(t, statsOf(t, service, subject).InFlight, int64(0), subject)
	}
}

// inTransit runs a call and something else 1.5 s later, in the middle of its message, and returns how the call ended and when, counted
// from then.
func inTransit(t *testing.T, call endpoint.Unary[[]byte, []byte], body []byte, limit time.Duration, event func(cancel func())) (after time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bounded, end := context.WithTimeout(ctx, limit)
	defer end()
	at := time.Now().Add(1500 * time.Millisecond)
	time.AfterFunc(1500*time.Millisecond, func() { event(cancel) })
	_, err = call(bounded, body)
	return time.Since(at), err
}

// Whatever happens in the middle of a message: the call ends soon, or by its deadline, with what is certain of it. A request that was
// not whole was not executed, a reply that was announced was.
func TestLargeInTransit(t *testing.T) {
	type ending struct {
		name   string
		event  func(n *bustest.Net, service, caller *bus.Bus, cancel func())
		limit  time.Duration
		code   endpoint.Code
		reason string
		most   time.Duration
	}
	hour := time.Hour
	for _, e := range []ending{
		{"the caller leaves", func(_ *bustest.Net, _, _ *bus.Bus, cancel func()) { cancel() }, hour, endpoint.Canceled, "", 0},
		{"the deadline passes", func(*bustest.Net, *bus.Bus, *bus.Bus, func()) {}, 2 * time.Second, endpoint.DeadlineExceeded, "", 500 * time.Millisecond},
		{"the caller's connection is lost", func(n *bustest.Net, _, _ *bus.Bus, _ func()) { n.Link("caller").Cut() }, hour, endpoint.Unavailable, endpoint.ReasonConnectionLost, time.Second},
		{"the service's connection is lost", func(n *bustest.Net, _, _ *bus.Bus, _ func()) { n.Link("service").Cut() }, hour, endpoint.Unavailable, endpoint.ReasonInstanceLost, 15 * time.Second},
		{"the service is gone", func(n *bustest.Net, _, _ *bus.Bus, _ func()) {
			n.Link("service").Cut()
			n.Link("service").Up.Freeze()
		}, hour, endpoint.Unavailable, endpoint.ReasonInstanceLost, 20 * time.Second},
		{"the caller closes", func(_ *bustest.Net, _, caller *bus.Bus, _ func()) { _ = caller.Close() }, hour, endpoint.Unavailable, endpoint.ReasonConnectionClosed, time.Second},
		{"the service is told to end", func(_ *bustest.Net, service, _ *bus.Bus, _ func()) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			go func() { _ = service.Drain(ctx) }()
		}, hour, endpoint.Unavailable, endpoint.ReasonDraining, 3 * time.Second},
	} {
		for _, large := range []string{"request", "reply"} {
			t.Run(e.name+", "+large, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, service, caller, l := bound(t)
					call, body, outcome, runs := l.put, make([]byte, cargo), endpoint.NotExecuted, 0
					if large == "reply" {
						call, body, outcome, runs = l.get, nil, endpoint.Executed, 1
					}
					after, err := inTransit(t, call, body, e.limit, func(cancel func()) { e.event(n, service, caller, cancel) })
					failed(t, err, e.code, e.reason, outcome)
					assert.True(t, after <= e.most, after.String())
					n.Link("service").Up.Thaw()
					time.Sleep(time.Minute)
					synctest.Wait()
					assert.Equal(t, l.ran, runs)
					if e.reason != endpoint.ReasonConnectionClosed { // nobody has slots there
						assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
					}
					assert.Equal(t, service.Streams()+service.Acked(), 0)
					assert.Equal(t, service.Free()+caller.Free(), int64(64*mib))
				})
			})
		}
	}
}

// A call that goes well takes as long as its bytes take, and after one that did not the next one does.
func TestLargeOverSlowLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, service, caller, l := bound(t)
		start := time.Now()
		got, err := l.put(t.Context(), bytes.Repeat([]byte("0123456789"), cargo/10))
		assert.NoError(t, err)
		assert.Equal(t, string(got), "0123456789")
		took := time.Since(start)
		assert.True(t, took > 3900*time.Millisecond && took < 5*time.Second, took.String())
		start = time.Now()
		got, err = l.get(t.Context(), nil)
		assert.NoError(t, err)
		assert.Equal(t, len(got), cargo)
		took = time.Since(start)
		assert.True(t, took > 3900*time.Millisecond && took < 5*time.Second, took.String())
		settled(t, service, caller)
	})
}

// A handler whose request came in chunks is canceled as any other.
func TestLargeRequestIsCanceledInItsHandler(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			n, service, caller := far(t, bus.WithMaxMessage(8*mib))
			latency(n)
			_, causes := until(t, service, "svc.put")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := echoer(caller, "svc.put")(ctx, make([]byte, 2*mib))
				ended <- err
			}()
			for statsOf(t, service, "svc.put").InFlight == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(100*time.Millisecond + wait) // all chunks are there
			cancel()
			failed(t, <-ended, endpoint.Canceled, "", endpoint.MaybeExecuted)
			assert.ErrorIs(t, <-causes, endpoint.Canceled)
			time.Sleep(time.Minute)
			assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams()+service.Acked(), 0)
		})
	}
}

// More than there is room for waits, and is refused when it has waited for long enough; what fits goes on.
func TestLargeRequestsFindNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t, bus.WithMaxMessage(2*mib))
		latency(n)
		g, _ := until(t, service, "svc.hold", endpoint.Backlog(10, time.Second))
		serve(t, service, "svc.small", rawEndpoint(echo))
		call := echoer(caller, "svc.hold")
		results := make(chan error, 10)
		for range 5 {
			go func() {
				_, err := call(t.Context(), make([]byte, 2*mib))
				results <- err
			}()
			time.Sleep(100 * time.Millisecond)
		}
		e := failed(t, <-results, endpoint.ResourceExhausted, endpoint.ReasonBacklogWait, endpoint.NotExecuted)
		assert.True(t, e.RetryAfter > 0, "when to try again")
		_, err := echoer(caller, "svc.small")(t.Context(), []byte("x"))
		assert.NoError(t, err)
		g.open()
		for range 4 {
			assert.NoError(t, <-results)
		}
		_, err = call(t.Context(), make([]byte, 2*mib))
		assert.NoError(t, err)
		assert.Equal(t, service.Free(), int64(8*mib))
	})
}

// A reply that is announced while its caller is without a connection is announced again, until the caller is back.
func TestLargeReplyWaitsForItsCaller(t *testing.T) {
	for _, away := range []time.Duration{300 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n, service, caller := far(t, bus.WithMaxMessage(8*mib))
			latency(n)
			serve(t, service, "svc.get", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
				time.Sleep(time.Second)
				return make([]byte, 2*mib), nil
			}))
			time.AfterFunc(800*time.Millisecond, func() {
				n.Link("caller").Cut()
				time.AfterFunc(away, n.Link("caller").Mend)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := echoer(caller, "svc.get")(ctx, nil)
			assert.NoError(t, err)
			assert.Equal(t, len(got), 2*mib)
			time.Sleep(time.Minute)
			synctest.Wait()
			assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams()+service.Acked(), 0)
		})
	}
}

// Where two queue groups have a large request, one of them executes it, and that the other lets it be is no end of the call.
func TestLargeRequestToTwoGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t, bus.WithMaxMessage(8*mib))
		latency(n)
		other := n.Connect("other", quiet(), bus.WithMaxMessage(8*mib))
		ran := make(chan bool, 2)
		for group, b := range map[string]*bus.Bus{"a": service, "b": other} {
			serve(t, b, "svc.put", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
				ran <- true
				time.Sleep(time.Second)
				return r[:3], nil
			}, endpoint.Queue(group)))
		}
		got, err := echoer(caller, "svc.put")(t.Context(), bytes.Repeat([]byte("abc"), mib))
		assert.NoError(t, err)
		assert.Equal(t, string(got), "abc")
		assert.Equal(t, len(ran), 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams()+other.Streams(), 0)
	})
}

// A caller that left before its reply was announced has that canceled, and no instance waits for its credit.
func TestLargeReplyTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t, bus.WithMaxMessage(8*mib))
		latency(n)
		ended := make(chan time.Time, 1)
		serve(t, service, "svc.get", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
			return make([]byte, 2*mib), nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel) // the request is on its way, and nothing has come back
		limited, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		_, err := echoer(caller, "svc.get")(limited, nil)
		failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
		go func() {
			for {
				time.Sleep(10 * time.Millisecond)
				if statsOf(t, service, "svc.get").InFlight == 0 {
					ended <- time.Now()
					return
				}
			}
		}()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, len(ended), 1, "the instance is told")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams()+service.Acked(), 0)
	})
}
