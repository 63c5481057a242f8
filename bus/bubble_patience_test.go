package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// The tests in this file run in bubbles, too: what must not end a call, however long it takes.

// Silence says nothing: a process that is stopped, for however long, and goes on, has lost no call.
func TestFrozenIsNotDead(t *testing.T) {
	for _, long := range []time.Duration{time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second} {
		for name, ways := range map[string]func(l *bustest.Link) []*bustest.Way{
			"both":         func(l *bustest.Link) []*bustest.Way { return []*bustest.Way{&l.Up, &l.Down} },
			"to it":        func(l *bustest.Link) []*bustest.Way { return []*bustest.Way{&l.Down} },
			"back from it": func(l *bustest.Link) []*bustest.Way { return []*bustest.Way{&l.Up} },
		} {
			t.Run(long.String()+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asleep := bus.WithNATS(nats.PingInterval(time.Hour)) // it does not miss anything meanwhile
					n, service, caller := far(t, asleep)
					g, _ := until(t, service, "svc.slow")
					distance(n, 5*time.Millisecond, "service", "caller")
					waits, over := started(echoer(caller, "svc.slow"), time.Minute), started(echoer(caller, "svc.slow"), time.Minute)
					time.Sleep(time.Second)
					for _, w := range ways(n.Link("service")) {
						w.Freeze()
						time.AfterFunc(long, w.Thaw)
					}
					g.opened <- struct{}{} // one ends while it is frozen
					time.Sleep(long / 2)
					if name != "to it" {
						assert.Equal(t, len(waits)+len(over), 0, "both wait")
					}
					time.Sleep(long)
					g.open()
					for _, c := range []chan ended{waits, over} {
						assert.NoError(t, (<-c).err)
					}
					time.Sleep(5 * time.Second)
					assert.Equal(t, caller.Slots()+caller.Watched()+service.Acked(), 0)
				})
			})
		}
	}
}

// The caller's connection breaks and comes back: a call that was acked goes on where its instance does.
func TestRow04AckedCallsOutliveACut(t *testing.T) {
	for _, lag := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		for _, cuts := range []int{1, 5} {
			t.Run(fmt.Sprint(lag, cuts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, service, caller := far(t)
					g, _ := until(t, service, "svc.slow")
					distance(n, lag, "service", "caller")
					var calls []chan ended
					for range 20 {
						calls = append(calls, started(echoer(caller, "svc.slow"), time.Minute))
					}
					time.Sleep(time.Second)
					for range cuts {
						n.Link("caller").Cut()
						time.Sleep(3 * time.Second)
					}
					assert.True(t, caller.Conn().IsConnected(), "back")
					g.open()
					for _, c := range calls {
						assert.NoError(t, (<-c).err)
					}
				})
			})
		}
	}
}

// While there is no connection nobody is asked, and nothing piles up.
func TestNoProbesWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		g, _ := until(t, service, "svc.slow")
		done := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(time.Second)
		kill(n, "caller")
		time.Sleep(10 * time.Second)
		assert.True(t, caller.Slots() <= 2, "the call's, and that of a probe which had no answer yet")
		n.Link("caller").Mend()
		time.Sleep(6 * time.Second)
		g.open()
		assert.NoError(t, (<-done).err)
	})
}

// The reply falls into a hole. Once the caller is back and asks, it is sent again; or, where it is not kept any more, the caller
// hears twice that nobody has the call.
func TestRow04ReplyLost(t *testing.T) {
	for _, lag := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		for kept, name := range map[bool]string{true: "kept", false: "forgotten"} {
			t.Run(fmt.Sprint(name, ", ", lag), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { replyInAHole(t, lag, kept) })
			})
		}
	}
}

func replyInAHole(t *testing.T, lag time.Duration, kept bool) {
	t.Helper()
	n, service, caller := far(t)
	g, _ := until(t, service, "svc.slow")
	distance(n, lag, "service", "caller")
	back := caller.Conn().StatusChanged(nats.CONNECTED)
	done, stays := started(echoer(caller, "svc.slow"), time.Minute), started(echoer(caller, "svc.slow"), time.Minute)
	time.Sleep(time.Second)
	n.Link("caller").Down.Hole()
	g.opened <- struct{}{}
	time.Sleep(time.Second)
	if !kept {
		service.Forget()
	}
	n.Link("caller").Mend()
	n.Link("caller").Cut()
	assert.Equal(t, len(done)+len(stays), 0, "both wait")
	<-back
	here := time.Now()
	var e ended
	select {
	case e = <-done:
		done = stays
	case e = <-stays:
	}
	took := time.Since(here)
	if kept {
		assert.NoError(t, e.err)
	} else {
		failed(t, e.err, endpoint.Unavailable, endpoint.ReasonReplyLost, endpoint.MaybeExecuted)
	}
	assert.True(t, took <= found+4*lag && took >= 4*lag, took.String())
	time.Sleep(10 * time.Second)
	g.open()
	assert.NoError(t, (<-done).err)
}

// The caller loses its connection again and again. Each time that it is back, the instance has the time that it needs for that, too.
func TestRow04BackBeforeTheInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller := n.Connect("caller", quiet())
		service, err := bus.New(n.Dial("service", nats.MaxReconnects(-1), nats.ReconnectWait(time.Second), nats.ReconnectJitter(0, 0)), quiet())
		assert.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, service.Drain(context.Background())) })
		g, _ := until(t, service, "svc.slow")
		back := caller.Conn().StatusChanged(nats.CONNECTED)
		done := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(time.Second)
		kill(n, "service")
		n.Link("caller").Cut()
		<-back
		time.Sleep(time.Second)
		kill(n, "caller")
		time.Sleep(10 * time.Second)
		n.Link("caller").Mend()
		<-back
		time.Sleep(time.Second)
		n.Link("service").Mend()
		time.Sleep(5 * time.Second)
		assert.Equal(t, len(done), 0, "the call waits")
		g.open()
		assert.NoError(t, (<-done).err)
	})
}

// An instance loses its connection and is back in a moment. A probe finds nobody once, whenever it comes; that is no death.
func TestBrieflyAwayIsNotDead(t *testing.T) {
	once := 0
	for phase := time.Duration(0); phase < 100*time.Millisecond; phase += 10 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			n := bustest.NewNet(t)
			caller := n.Connect("caller", quiet())
			service, err := bus.New(n.Dial("service", nats.MaxReconnects(-1), nats.ReconnectWait(60*time.Millisecond), nats.ReconnectJitter(0, 0)), quiet())
			assert.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, service.Drain(context.Background())) })
			g, _ := until(t, service, "svc.slow")
			done := started(echoer(caller, "svc.slow"), time.Minute)
			time.Sleep(time.Second + phase)
			answers := caller.Conn().Stats().InMsgs
			n.Link("service").Cut()
			time.Sleep(55 * time.Millisecond)
			assert.True(t, service.Conn().IsReconnecting(), "away")
			if caller.Conn().Stats().InMsgs > answers {
				once++ // the broker's word
			}
			time.Sleep(5 * time.Second)
			assert.Equal(t, len(done), 0, "the call waits")
			g.open()
			assert.NoError(t, (<-done).err)
		})
	}
	assert.True(t, once > 2, "a probe came at the wrong moment")
}

// An answer that was asked for by way of an earlier connection says nothing of what this one reaches.
func TestAnswersOfAnEarlierConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller, nc := n.Connect("caller", quiet()), n.Dial("peer")
		probes, requests := make(chan *nats.Msg, 100), make(chan *nats.Msg, 1)
		sub, err := nc.Subscribe("_RPC.svc.i1.>", func(m *nats.Msg) { probes <- m })
		assert.NoError(t, err)
		respond(t, nc, "svc.slow", func(m *nats.Msg) {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: below("x"), Header: nats.Header(wire.WriteAck("i1"))})
			requests <- m
		})
		done := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(time.Second)
		n.Link("caller").Cut()
		assert.NoError(t, sub.Unsubscribe())
		back := caller.Conn().StatusChanged(nats.CONNECTED)
		<-back
		synctest.Wait()
		for range len(probes) {
			beat(nc, <-probes, wire.VerbBeat, "")
		}
		time.Sleep(5 * time.Second)
		assert.Equal(t, len(done), 0, "the call waits")
		assert.NoError(t, (<-requests).Respond(nil))
		assert.NoError(t, (<-done).err)
	})
}

// A call may take long, over a network that is never the same.
func TestLongCallInBadWeather(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			n, service, caller := far(t)
			g, _ := until(t, service, "svc.slow")
			done := started(echoer(caller, "svc.slow"), 2*time.Minute)
			for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Duration(1+r.IntN(20)) * time.Millisecond) {
				l := n.Link([]string{"service", "caller"}[r.IntN(2)])
				[]*bustest.Way{&l.Up, &l.Down}[r.IntN(2)].Latency(time.Duration(r.IntN(300)) * time.Millisecond)
			}
			assert.Equal(t, len(done), 0)
			assert.Equal(t, caller.Living(), 1, "it answers")
			distance(n, 0, "service", "caller")
			g.open()
			assert.NoError(t, (<-done).err)
		})
	}
}
