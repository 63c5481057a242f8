package bus_test

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// Streams where none should be, and peers that do less than they may.

// A unary call that is answered with a message of a stream is no success, whatever the body.
func TestUnaryCallOfAStream(t *testing.T) {
	_, caller, s := free(t)
	nc := foreign(t, s)
	for name, h := range map[string]wire.Headers{
		"open": wire.WriteOpen("evil"), "item": itemFrame(1), "end": endFrame(0), "in other letters": {"rpc-seq": {"1"}},
	} {
		respond(t, nc, "svc."+name[:2], func(m *nats.Msg) {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(maps.Clone(h)), Data: []byte(`{"Sum":1}`)})
		})
		_, err := adder(caller, "svc."+name[:2])(t.Context(), &AddRequest{})
		failed(t, err, endpoint.Unimplemented, endpoint.ReasonProtocol, endpoint.Executed)
	}
}

// By way of an import, where nothing tells the service who calls, a unary caller looks like one that knows no streams.
func TestUnaryCallOfAStreamAcrossAccounts(t *testing.T) {
	s := accounts(t, exported(t), "response_type: singleton", "share: false")
	serveStreams(t, as(t, s, "service", "_RI.svc"))
	caller := as(t, s, "client", "_RI.cli")
	_, err := adder(caller, "svc.count")(t.Context(), &AddRequest{A: 3})
	failed(t, err, endpoint.Unimplemented, endpoint.ReasonProtocol, endpoint.Executed)
}

// Frames of streams about a unary call change nothing for it, and who asks is told that there is no such stream.
func TestFramesAboutAUnaryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		evil := n.Dial("evil")
		g, _ := until(t, service, "svc.slow")
		acks := make(chan string, 10)
		respond(t, evil, "_INBOX.>", func(m *nats.Msg) {
			if m.Header.Get(wire.Ack) != "" {
				acks <- m.Reply
			}
		})
		done := started(echoer(caller, "svc.slow"), time.Minute)
		control := <-acks
		sub, err := evil.SubscribeSync("_INBOX.evil")
		assert.NoError(t, err)
		for _, h := range []wire.Headers{
			itemFrame(1), wire.WriteHalf(0), wire.WriteBeat(7, wire.Grant{}), wire.WriteWindow(wire.Grant{Messages: 1 << 40}),
			wire.WriteOpen("evil"), endFrame(3), wire.WriteControl(wire.VerbUnknown),
		} {
			assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: control, Reply: "_INBOX.evil", Header: nats.Header(h)}))
		}
		time.Sleep(time.Second)
		for range 4 {
			m, err := sub.NextMsg(time.Second)
			assert.NoError(t, err)
			assert.Equal(t, m.Header.Get(wire.Ctl), wire.VerbUnknown)
		}
		_, err = sub.NextMsg(time.Second)
		assert.ErrorIs(t, err, nats.ErrTimeout)
		g.open()
		assert.NoError(t, (<-done).err)
		synctest.Wait() // the service does its sums after the reply
		assert.Equal(t, service.Streams()+service.Acked(), 0)
	})
}

// raw is a stream that is called by hand: it has the open, and says what it likes.
func raw(t *testing.T, n *bustest.Net, subject string, h nats.Header, body string) (say func(reply string, h wire.Headers), sub *nats.Subscription) {
	t.Helper()
	nc := n.Dial("raw")
	sub, err := nc.SubscribeSync("_INBOX.raw")
	assert.NoError(t, err)
	assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: subject, Reply: "_INBOX.raw", Header: h, Data: []byte(body)}))
	open, err := sub.NextMsg(time.Second)
	assert.NoError(t, err)
	assert.True(t, open.Header.Get(wire.Open) != "", "it is open")
	return func(reply string, h wire.Headers) {
		assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: open.Reply, Reply: reply, Header: nats.Header(h)}))
	}, sub
}

// A caller that lives and never grants more gets what it granted at first. It holds one handler, which an idle timeout frees.
func TestCallerThatGrantsNothing(t *testing.T) {
	const idle = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service := n.Connect("service", quiet())
		serve(t, service, "svc.count", endpoint.NewServerStream(count, endpoint.IdleTimeout(idle)))
		say, sub := raw(t, n, "svc.count", nats.Header{"Rpc-Stream": {"server"}}, `{"A":1000}`)
		start, items, end := time.Now(), 0, &nats.Msg{}
		beats := time.NewTicker(heartbeat)
		defer beats.Stop()
		for end.Header == nil {
			m, err := sub.NextMsg(heartbeat)
			switch {
			case err == nil && m.Header.Get(wire.End) != "":
				end = m
			case err == nil && m.Header.Get(wire.Ctl) == "":
				items++
			}
			select {
			case <-beats.C:
				say("_INBOX.raw", wire.WriteBeat(0, wire.Grant{}))
			default:
			}
		}
		assert.Equal(t, items, 64)
		assert.Equal(t, end.Header.Get(wire.End)+end.Header.Get("Rpc-Reason"), "64"+endpoint.ReasonIdle)
		assert.Equal(t, time.Since(start), idle)
		synctest.Wait()
		assert.Equal(t, service.Streams(), 0)
	})
}

// A caller must not draw a service's frames where they have nothing to do.
func TestCallerThatMovesToTheBroker(t *testing.T) {
	for _, to := range []string{"$JS.API.STREAM.DELETE.ORDERS", "svc.tail"} {
		synctest.Test(t, func(t *testing.T) {
			n := bustest.NewNet(t)
			service := n.Connect("service", quiet())
			causes := make(chan cause, 1)
			serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
			heard := 0
			respond(t, n.Dial("tap"), "$JS.>", func(*nats.Msg) { heard++ })
			say, sub := raw(t, n, "svc.tail", nats.Header{"Rpc-Stream": {"server"}}, `{}`)
			say(to, wire.WriteBeat(0, wire.Grant{}))
			end, err := sub.NextMsg(time.Second)
			assert.NoError(t, err)
			assert.Equal(t, end.Header.Get("Rpc-Code")+" "+end.Header.Get("Rpc-Reason"), "invalid_argument protocol")
			assert.ErrorIs(t, (<-causes).err, endpoint.InvalidArgument)
			synctest.Wait()
			assert.Equal(t, heard+service.Streams(), 0)
			assert.Equal(t, own(service).Malformed, uint64(1))
		})
	}
}

// A service must not draw its caller's frames elsewhere later, either.
func TestServiceThatMovesOutsideOfTheRoot(t *testing.T) {
	for _, to := range []string{"$JS.API.STREAM.DELETE.ORDERS", "svc.add", "_RPC.svc.other.c.abc"} {
		synctest.Test(t, func(t *testing.T) {
			n := bustest.NewNet(t)
			caller, evil := n.Connect("caller", quiet()), n.Dial("evil")
			heard := 0
			respond(t, n.Dial("tap"), ">", func(m *nats.Msg) {
				if m.Subject == to {
					heard++
				}
			})
			canceled := make(chan bool, 1)
			respond(t, evil, "_RPC.svc.evil.>", func(m *nats.Msg) {
				if m.Header.Get(wire.Ctl) == wire.VerbCancel {
					canceled <- true
				}
			})
			respond(t, evil, "svc.evil", func(m *nats.Msg) {
				say := func(reply string, h wire.Headers) {
					_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: reply, Header: nats.Header(h)})
				}
				say("_RPC.svc.evil.c.abc", wire.WriteOpen("evil"))
				say("_RPC.svc.evil.c.abd", wire.WriteBeat(0, wire.Grant{})) // as an import may
				say(to, wire.WriteBeat(0, wire.Grant{}))
			})
			_, err := collect(counter(caller, "svc.evil")(context.Background(), &AddRequest{}))
			failed(t, err, endpoint.Internal, endpoint.ReasonProtocol, endpoint.MaybeExecuted)
			<-canceled
			time.Sleep(time.Minute)
			synctest.Wait()
			assert.Equal(t, heard+caller.Slots()+caller.Tombs()+caller.Watched(), 0)
			assert.Equal(t, own(caller).Malformed, uint64(1))
		})
	}
}
