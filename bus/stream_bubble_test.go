package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

const heartbeat = 15 * time.Second

// silentStream yields A items, and nothing more until its context ends.
func silentStream(causes chan<- cause) func(context.Context, *AddRequest) outSeq {
	return func(ctx context.Context, r *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			for i := range r.A {
				if !yield(&AddResponse{i + 1}, nil) {
					break
				}
			}
			<-ctx.Done()
			causes <- cause{context.Cause(ctx), time.Now()}
		}
	}
}

// farStreams serves silentStream at the end of a link.
func farStreams(t *testing.T, opts ...endpoint.Option) (n *bustest.Net, service, caller *bus.Bus, causes chan cause) {
	t.Helper()
	n, service, caller = far(t)
	causes = make(chan cause, 1000)
	serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes), opts...))
	return n, service, caller, causes
}

// clean wants nothing left behind.
func clean(t *testing.T, service, caller *bus.Bus) {
	t.Helper()
	time.Sleep(time.Minute) // for tombs
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+service.Streams(), 0)
	assert.Equal(t, statsOf(t, service, "svc.tail").InFlight, int64(0))
}

// A consumer that leaves ends the handler one way later, whenever it leaves.
func TestStreamCancelTakesOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller, causes := farStreams(t)
		latency(n)
		for v, err := range counter(caller, "svc.tail")(t.Context(), &AddRequest{A: 40}) {
			assert.NoError(t, err)
			if v.Sum == 3 {
				break
			}
		}
		left := time.Now()
		c := <-causes
		assert.ErrorIs(t, c.err, endpoint.Canceled)
		assert.Equal(t, c.at.Sub(left), 10*time.Millisecond)
		clean(t, service, caller)
	})
}

// Who leaves before the stream is open cancels it when it opens.
func TestStreamLeftBeforeItOpens(t *testing.T) {
	for _, when := range []time.Duration{time.Millisecond, 9 * time.Millisecond, 11 * time.Millisecond, 19 * time.Millisecond, 21 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			n, service, caller, causes := farStreams(t)
			latency(n)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(when, cancel)
			start := time.Now()
			_, err := collect(counter(caller, "svc.tail")(ctx, &AddRequest{}))
			failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
			assert.Equal(t, time.Since(start), when)
			c := <-causes
			assert.ErrorIs(t, c.err, endpoint.Canceled)
			assert.Equal(t, c.at.Sub(start).String(), (max(when, 20*time.Millisecond) + 10*time.Millisecond).String())
			clean(t, service, caller)
		})
	}
}

// A stream that carries nothing lives for hours, by beats alone, and both ends are told of the end at once.
func TestStreamLivesByBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller, causes := farStreams(t)
		latency(n)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(5*time.Hour, cancel)
		start := time.Now()
		sums, err := collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: 3}))
		assert.Equal(t, sums, []int{1, 2, 3})
		failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
		assert.Equal(t, (<-causes).at.Sub(start), 5*time.Hour+10*time.Millisecond)
		clean(t, service, caller)
	})
}

// A deadline of the caller's is that of the whole stream, at both ends.
func TestStreamDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller, causes := farStreams(t)
		latency(n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: 3}))
		failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Since(start), time.Minute)
		c := <-causes
		assert.ErrorIs(t, c.err, context.DeadlineExceeded)
		assert.Equal(t, c.at.Sub(start).Round(time.Microsecond), time.Minute+10*time.Millisecond) // counted from receipt
		clean(t, service, caller)
	})
}

// One of both ends is not heard of any more: both know after three intervals.
func TestStreamSilence(t *testing.T) {
	for name, spoil := range map[string]func(n *bustest.Net){
		"the service can't speak": func(n *bustest.Net) { n.Link("service").Up.Hole() },
		"the caller can't speak":  func(n *bustest.Net) { n.Link("caller").Up.Hole() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, _, caller, causes := farStreams(t)
				done := make(chan error, 1)
				start := time.Now()
				go func() {
					_, err := collect(counter(caller, "svc.tail")(context.Background(), &AddRequest{A: 3}))
					done <- err
				}()
				time.Sleep(time.Second)
				spoil(n)
				if name == "the caller can't speak" { // its pings find out
					failed(t, <-done, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
					assert.True(t, time.Since(start) <= 7*time.Second, time.Since(start).String())
					c := <-causes
					assert.ErrorIs(t, c.err, endpoint.Unavailable)
					after := c.at.Sub(start) // three intervals after a probe in the first second, or the request
					assert.True(t, after >= 3*heartbeat && after <= 3*heartbeat+1100*time.Millisecond, after.String())
				} else {
					failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceSilent, endpoint.MaybeExecuted)
					assert.Equal(t, time.Since(start), 3*heartbeat)
					assert.ErrorIs(t, (<-causes).err, endpoint.Unavailable)
				}
				n.Link("service").Mend()
				n.Link("caller").Mend()
				time.Sleep(time.Minute)
				_, err := collect(counter(caller, "svc.tail", endpoint.Timeout(time.Second))(t.Context(), &AddRequest{}))
				assert.ErrorIs(t, err, endpoint.DeadlineExceeded, "the next one works")
			})
		})
	}
}

// A connection that is lost ends the streams on it: those of the caller at once, those of the service when it is back, or when the
// broker says twice that it is not there.
func TestStreamConnectionLost(t *testing.T) {
	for link, reason := range map[string]string{"caller": endpoint.ReasonConnectionLost, "service": endpoint.ReasonInstanceLost} {
		t.Run(link, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller, causes := farStreams(t)
				time.AfterFunc(time.Second, n.Link(link).Cut)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // else a fault would take for ever
				defer cancel()
				sums, err := collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: 3}))
				assert.Equal(t, sums, []int{1, 2, 3})
				outcome := endpoint.MaybeExecuted
				if e, ok := errors.AsType[*endpoint.Error](err); ok && link == "service" && e.Remote() {
					outcome = endpoint.Executed
				}
				failed(t, err, endpoint.Unavailable, reason, outcome)
				assert.True(t, time.Since(start) < 4*time.Second, time.Since(start).String())
				assert.True(t, link == "service" || time.Since(start) == time.Second, "at once")
				c := <-causes
				assert.ErrorIs(t, c.err, endpoint.Unavailable)
				time.Sleep(5 * time.Second)
				_, err = collect(counter(caller, "svc.tail", endpoint.Timeout(time.Second))(t.Context(), &AddRequest{}))
				assert.ErrorIs(t, err, endpoint.DeadlineExceeded, "the next one works")
				clean(t, service, caller)
			})
		})
	}
}

// A consumer that takes its time holds the producer, and loses nothing.
func TestSlowConsumerHoldsTheProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, service, caller, _ := farStreams(t)
		var made atomic.Int64
		serve(t, service, "svc.fast", endpoint.NewServerStream(func(context.Context, *AddRequest) outSeq {
			return func(yield func(*AddResponse, error) bool) {
				for i := range 300 {
					made.Add(1)
					if !yield(&AddResponse{i + 1}, nil) {
						return
					}
				}
			}
		}))
		taken := 0
		for v, err := range counter(caller, "svc.fast", endpoint.IdleTimeout(10*time.Second))(t.Context(), &AddRequest{}) {
			assert.NoError(t, err)
			taken++
			assert.Equal(t, v.Sum, taken)
			time.Sleep(11 * time.Second) // longer than idle: but it is not idle
			synctest.Wait()
			assert.True(t, made.Load() <= int64(taken)+65, "ahead by the credit at most")
		}
		assert.Equal(t, taken, 300)
		clean(t, service, caller)
	})
}

// A stream that carries nothing for too long ends, by whichever side says so, at both.
func TestStreamIdle(t *testing.T) {
	const idle = 20 * time.Second
	for _, side := range []string{"caller", "service"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at, by []endpoint.Option
				outcome := endpoint.MaybeExecuted
				if side == "service" {
					at, outcome = append(at, endpoint.IdleTimeout(idle)), endpoint.Executed
				} else {
					by = append(by, endpoint.IdleTimeout(idle))
				}
				_, service, caller, causes := farStreams(t, at...)
				start := time.Now()
				sums, err := collect(counter(caller, "svc.tail", by...)(t.Context(), &AddRequest{A: 3}))
				assert.Equal(t, sums, []int{1, 2, 3})
				failed(t, err, endpoint.DeadlineExceeded, endpoint.ReasonIdle, outcome)
				assert.Equal(t, time.Since(start), idle)
				assert.Equal(t, (<-causes).at.Sub(start), idle)
				clean(t, service, caller)
			})
		})
	}
}

// A drain lets streams go on until its time is up.
func TestStreamsAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, caller := far(t)
		service, err := bus.New(n.Dial("its own"), quiet()) // the net would drain its own once more
		assert.NoError(t, err)
		causes := make(chan cause, 10)
		serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
		serve(t, service, "svc.double", endpoint.NewBidiStream(double))
		done := make(chan error, 1)
		go func() {
			_, err := collect(counter(caller, "svc.tail")(context.Background(), &AddRequest{A: 3}))
			done <- err
		}()
		slow := make(chan []int, 1)
		go func() {
			sums, err := collect(doubler(caller, "svc.double")(context.Background(), func(yield func(*AddRequest, error) bool) {
				for i := 0; i < 10 && yield(&AddRequest{A: i + 1}, nil); i++ {
					time.Sleep(100 * time.Millisecond)
				}
			}))
			if err != nil {
				t.Error(err)
			}
			slow <- sums
		}()
		time.Sleep(50 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		assert.NoError(t, service.Drain(ctx))
		assert.Equal(t, time.Since(start), 2*time.Second)
		assert.Equal(t, <-slow, upTo(10, 2), "who ends in time ends well")
		failed(t, <-done, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.Executed)
		assert.ErrorIs(t, (<-causes).err, endpoint.Unavailable)
	})
}

// The caller says how often both sides beat, and both notice silence accordingly.
func TestHeartbeat(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Second, time.Minute} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, caller := n.Connect("service", quiet()), n.Connect("caller", quiet(), bus.WithHeartbeat(every+time.Microsecond))
				causes := make(chan cause, 1)
				serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
				var theirs, ours atomic.Int64
				count := func(beats *atomic.Int64) nats.MsgHandler {
					return func(m *nats.Msg) {
						if m.Header.Get(wire.Ctl) == wire.VerbBeat && m.Header.Get(wire.Seq) != "" {
							beats.Add(1)
						}
					}
				}
				tapped := n.Dial("tap")
				respond(t, tapped, "_INBOX.>", count(&theirs))
				respond(t, tapped, "_RPC.>", count(&ours))
				done := make(chan error, 1)
				go func() {
					_, err := collect(counter(caller, "svc.tail")(context.Background(), &AddRequest{A: 3}))
					done <- err
				}()
				time.Sleep(10*every + every/2)
				assert.Equal(t, []int64{theirs.Load(), ours.Load()}, []int64{10, 10})
				n.Link("service").Up.Hole()
				start := time.Now()
				failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceSilent, endpoint.MaybeExecuted)
				assert.Equal(t, time.Since(start), 3*every-every/2)
				<-causes
			})
		})
	}
}
