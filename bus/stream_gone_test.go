package bus_test

import (
	"context"
	"fmt"
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

// What one end of a stream finds out about the other, and when.

// foundLong is how long the death of an instance that has streams alone may go unnoticed.
const foundLong = time.Second + found

// stuckStreams serves streams of all kinds that come to no end of themselves.
func stuckStreams(t testing.TB, b *bus.Bus) (causes chan cause) {
	t.Helper()
	causes = make(chan cause, 10_000)
	serve(t, b, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
	serve(t, b, "svc.total", endpoint.NewClientStream(func(ctx context.Context, in inSeq) (*AddResponse, error) {
		r, err := total(ctx, in)
		causes <- cause{context.Cause(ctx), time.Now()}
		return r, err
	}))
	serve(t, b, "svc.double", endpoint.NewBidiStream(func(ctx context.Context, in inSeq) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			double(ctx, in)(yield)
			causes <- cause{context.Cause(ctx), time.Now()}
		}
	}))
	return causes
}

// hold is an input that has an item each second, until its context ends.
func hold(ctx context.Context) inSeq {
	return func(yield func(*AddRequest, error) bool) {
		for yield(&AddRequest{A: 1}, nil) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
		}
	}
}

// kinds calls each kind of stuckStreams.
func kinds(caller *bus.Bus) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"server": func(ctx context.Context) error {
			_, err := collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: 3}))
			return err
		},
		"client": func(ctx context.Context) error {
			_, err := totaler(caller, "svc.total")(ctx, hold(ctx))
			return err
		},
		"bidi": func(ctx context.Context) error {
			_, err := collect(doubler(caller, "svc.double")(ctx, hold(ctx)))
			return err
		},
	}
}

// An instance that dies takes its streams along, and their callers know about a second later, not after three heartbeats.
func TestStreamInstanceKilled(t *testing.T) {
	for _, kind := range []string{"server", "client", "bidi"} {
		for _, lag := range []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond} {
			t.Run(fmt.Sprint(kind, " ", lag), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, service, caller := far(t)
					distance(n, lag, "service", "caller")
					stuckStreams(t, service)
					done := make(chan error, 1)
					go func() { done <- kinds(caller)[kind](context.Background()) }()
					time.Sleep(10*time.Second + 40*time.Millisecond)
					assert.Equal(t, service.Streams(), 1)
					kill(n, "service")
					died := time.Now()
					failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
					took := time.Since(died)
					assert.True(t, took <= foundLong+2*lag, took.String())
					time.Sleep(5 * time.Second)
					assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched(), 0)
				})
			})
		}
	}
}

// Nor when it dies soon after the stream began.
func TestStreamInstanceKilledEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		stuckStreams(t, service)
		done := make(chan error, 1)
		go func() { done <- kinds(caller)["server"](context.Background()) }()
		time.Sleep(500 * time.Millisecond)
		assert.Equal(t, service.Streams(), 1)
		kill(n, "service")
		died := time.Now()
		failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
		assert.True(t, time.Since(died) <= foundLong, time.Since(died).String())
		time.Sleep(5 * time.Second)
		assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched(), 0)
	})
}

// A caller that dies ends its handlers a beat later: the broker says that nobody listens, and says it again.
func TestStreamCallerKilled(t *testing.T) {
	for _, kind := range []string{"server", "client", "bidi"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t)
				latency(n)
				causes := stuckStreams(t, service)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go func() { _ = kinds(caller)[kind](ctx) }()
				time.Sleep(20 * time.Second)
				assert.Equal(t, service.Streams(), 1)
				kill(n, "caller")
				died := time.Now()
				c := <-causes
				assert.ErrorIs(t, c.err, endpoint.Canceled)
				assert.Contains(t, c.err.Error(), "gone")
				assert.True(t, c.at.Sub(died) <= heartbeat+200*time.Millisecond, c.at.Sub(died).String())
				synctest.Wait()
				assert.Equal(t, service.Streams(), 0)
				assert.Equal(t, own(service).Malformed, uint64(0))
			})
		})
	}
}

// The broker's word that a caller is gone is one word, and no loss, when something comes from it after that.
func TestOneWordAboutACaller(t *testing.T) {
	nobody := nats.Header{"Status": {"503"}, "Nats-Subject": {"_INBOX.x"}}
	for name, c := range map[string]struct {
		between time.Duration
		alive   bool
		ends    bool
	}{
		"once":                {0, false, false},
		"twice at once":       {time.Millisecond, false, false},
		"twice":               {150 * time.Millisecond, false, true},
		"twice, and it lives": {150 * time.Millisecond, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, nc := n.Connect("service", quiet()), n.Dial("peer")
				causes := stuckStreams(t, service)
				sub, err := nc.SubscribeSync("_INBOX.x")
				assert.NoError(t, err)
				assert.NoError(t, nc.PublishMsg(&nats.Msg{
					Subject: "svc.tail", Reply: "_INBOX.x", Header: nats.Header{"Rpc-Stream": {"server"}}, Data: []byte("{}"),
				}))
				open, err := sub.NextMsg(time.Second)
				assert.NoError(t, err)
				say := func(h nats.Header) { assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: open.Reply, Header: h})) }
				say(nobody) // nobody was heard of: it counts for nothing
				time.Sleep(time.Second)
				say(nobody)
				time.Sleep(time.Second)
				say(nats.Header(wire.WriteBeat(0, wire.Grant{})))
				say(nobody)
				if c.between > 0 {
					time.Sleep(c.between)
					if c.alive {
						say(nats.Header(wire.WriteBeat(0, wire.Grant{})))
					}
					say(nobody)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				assert.Equal(t, len(causes) > 0, c.ends)
				assert.Equal(t, own(service).Malformed, uint64(0))
				say(nats.Header(wire.WriteControl(wire.VerbCancel)))
				<-causes
			})
		})
	}
}

// What the broker says to a beat of the caller's is no end of the stream: behind a leaf node it may say so while the service lives.
func TestBrokersWordIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller, nc := n.Connect("caller", quiet()), n.Dial("peer")
		respond(t, nc, "svc.peer", func(m *nats.Msg) {
			say := func(reply string, h nats.Header) {
				_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: reply, Header: h})
			}
			say("_RPC.svc.peer.c.abc", nats.Header(wire.WriteOpen("peer")))
			for range 3 {
				say("", nats.Header{"Status": {"503"}, "Nats-Subject": {"_RPC.svc.peer.c.abc"}})
			}
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(itemFrame(1)), Data: []byte(`{"Sum":1}`)})
			say("", nats.Header(endFrame(1)))
		})
		sums, err := collect(counter(caller, "svc.peer")(t.Context(), &AddRequest{}))
		assert.NoError(t, err)
		assert.Equal(t, sums, []int{1})
	})
}

// However many streams there are, an instance is asked for them once a second, and for hours.
func TestPaceOfProbesForStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		causes := make(chan cause, 1000)
		serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
		g, _ := until(t, service, "svc.slow")
		var pings atomic.Int64
		tap(t, n, wire.VerbPing, func(*nats.Msg) { pings.Add(1) })
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range 500 {
			go func() { _, _ = collect(counter(caller, "svc.tail")(ctx, &AddRequest{A: 1})) }()
		}
		time.Sleep(time.Second / 2)
		assert.Equal(t, caller.Watched(), 500)
		count := func(d time.Duration) int64 {
			before := pings.Load()
			time.Sleep(d)
			return pings.Load() - before
		}
		assert.Equal(t, count(time.Minute), int64(60))
		slow := started(echoer(caller, "svc.slow"), time.Hour)
		fast := count(10 * time.Second)
		assert.True(t, fast >= 99 && fast <= 101, "a call beside them is asked for as ever: ", fmt.Sprint(fast))
		g.open()
		assert.NoError(t, (<-slow).err)
		count(time.Second)
		assert.Equal(t, count(time.Minute), int64(60))
		cancel()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, caller.Watched()+caller.Slots()+service.Streams(), 0)
		assert.True(t, count(time.Minute) == 0, "nobody is asked for nothing")
	})
}

// A caller whose bus ends takes leave of its streams.
func TestStreamsOfAClosedCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t)
		causes := stuckStreams(t, service)
		caller, err := bus.New(n.Dial("its own"), quiet())
		assert.NoError(t, err)
		done := make(chan error, 3)
		for _, call := range kinds(caller) {
			go func() { done <- call(context.Background()) }()
		}
		time.Sleep(10 * time.Second)
		assert.Equal(t, service.Streams(), 3)
		left := time.Now()
		assert.NoError(t, caller.Close())
		for range 3 {
			failed(t, <-done, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
			c := <-causes
			assert.ErrorIs(t, c.err, endpoint.Canceled)
			assert.True(t, c.at.Sub(left) < 100*time.Millisecond, c.at.Sub(left).String())
		}
		time.Sleep(2 * time.Second) // their inputs see it at their next item
	})
}
