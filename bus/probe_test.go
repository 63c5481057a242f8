package bus_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// deadline runs a call with a deadline that it must not need.
func deadline(t testing.TB, call endpoint.Unary[[]byte, []byte], d time.Duration) chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := call(ctx, []byte("x"))
		done <- err
	}()
	return done
}

// The responder dies, without a word, with calls that it acked: they end within a fraction of a second, not by their deadline.
func TestRow06InstanceLost(t *testing.T) {
	const calls = 300 // more than a frame's
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	nc := foreign(t, s)
	service, err := bus.New(nc, quiet())
	assert.NoError(t, err)
	g, _ := until(t, service, "svc.slow")
	call := echoer(caller, "svc.slow")
	var done []chan error
	for range calls {
		done = append(done, deadline(t, call, time.Minute))
	}
	g.await(t, calls)
	assert.Eventually(t, func() bool { return caller.Watched() == calls && caller.Living() == 1 })
	died := time.Now()
	nc.Close()
	for _, d := range done {
		e := failed(t, <-d, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
		assert.True(t, !e.Remote(), "found out here")
	}
	t.Logf("%d calls ended %v after their instance", calls, time.Since(died))
	assert.True(t, time.Since(died) < soon, "in time")
	assert.Eventually(t, func() bool { return caller.Slots() == 0 && caller.Watched() == 0 })
	_ = service.Close()
}

// Those at other instances go on, and so does who moved to one.
func TestRow06OthersGoOn(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	ncs := []*nats.Conn{foreign(t, s), foreign(t, s)}
	services := each(2, func(i int) *bus.Bus {
		b, err := bus.New(ncs[i], quiet())
		assert.NoError(t, err)
		return b
	})
	call := echoer(caller, "svc.slow")
	g, _ := until(t, services[0], "svc.slow")
	lost := deadline(t, call, time.Minute)
	g.await(t, 1)
	assert.NoError(t, services[0].Conn().Flush())
	assert.Eventually(t, func() bool { return caller.Living() == 1 })
	g2, _ := until(t, services[1], "svc.slow")
	lives := make(chan error, 1)
	go func() {
		_, err := call(endpoint.WithInstance(t.Context(), services[1].ID()), nil)
		lives <- err
	}()
	g2.await(t, 1)
	assert.Eventually(t, func() bool { return caller.Living() == 2 })
	ncs[0].Close()
	failed(t, <-lost, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
	g2.open()
	assert.NoError(t, <-lives)
	_ = services[0].Close()
	_ = services[1].Close()
}

// peer is a responder of the test's own making: it acks, and answers what is asked below its root as it likes.
func peer(t testing.TB, s *embedded.Server, subject string, control func(call string) string, answer func(nc *nats.Conn, m *nats.Msg)) (requests chan *nats.Msg) {
	t.Helper()
	nc := foreign(t, s)
	requests = make(chan *nats.Msg, 100)
	var n atomic.Int32
	respond(t, nc, "_RPC.svc.i1.>", func(m *nats.Msg) { answer(nc, m) })
	respond(t, nc, subject, func(m *nats.Msg) {
		call := fmt.Sprintf("%011d", n.Add(1))
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: control(call), Header: nats.Header(wire.WriteAck("i1"))})
		requests <- m
	})
	return requests
}

func below(call string) string { return "_RPC.svc.i1.c." + call }

func beat(nc *nats.Conn, m *nats.Msg, verb, body string) {
	if m.Header.Get(wire.Ctl) == wire.VerbPing {
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(wire.WriteControl(verb)), Data: []byte(body)})
	}
}

// The broker's word alone is no death: the instance must have answered on this connection before.
func TestRow06FirstNobodyIsNotBelieved(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	requests := make(chan *nats.Msg, 1)
	respond(t, nc, "svc.slow", func(m *nats.Msg) {
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: below("x"), Header: nats.Header(wire.WriteAck("i1"))}) // where nobody listens
		requests <- m
	})
	done := deadline(t, echoer(caller, "svc.slow"), time.Minute)
	m := <-requests
	assert.Eventually(t, func() bool { return caller.Asked() >= 4 })
	assert.Equal(t, len(done), 0, "the call waits")
	assert.NoError(t, m.Respond(nil))
	assert.NoError(t, <-done)
}

func TestReplyLost(t *testing.T) {
	for name, c := range map[string]struct{ verb, body string }{
		"unknown":           {wire.VerbUnknown, ""},
		"missing":           {wire.VerbBeat, "00000000001"},
		"missing, of many":  {wire.VerbBeat, "zzz\n00000000007\n00000000001\n00000000001"},
		"missing, and more": {wire.VerbBeat, "00000000001\n\n\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			_, caller, s := pair(t)
			var pings atomic.Int32
			peer(t, s, "svc.slow", below, func(nc *nats.Conn, m *nats.Msg) {
				pings.Add(1)
				beat(nc, m, c.verb, c.body)
			})
			start := time.Now()
			err := <-deadline(t, echoer(caller, "svc.slow"), time.Minute)
			failed(t, err, endpoint.Unavailable, endpoint.ReasonReplyLost, endpoint.MaybeExecuted)
			assert.Equal(t, pings.Load(), int32(2), "said twice")
			assert.True(t, time.Since(start) >= 90*time.Millisecond, "a round trip of grace")
		})
	}
}

// What says nothing about the call lets it wait for its reply, which comes.
func TestProbesThatSayNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(nc *nats.Conn, m *nats.Msg){
		"silence":            func(*nats.Conn, *nats.Msg) {},
		"alive":              func(nc *nats.Conn, m *nats.Msg) { beat(nc, m, wire.VerbBeat, "") },
		"others are missing": func(nc *nats.Conn, m *nats.Msg) { beat(nc, m, wire.VerbBeat, "00000000007\n00000000008") },
		"garbage":            func(nc *nats.Conn, m *nats.Msg) { beat(nc, m, wire.VerbBeat, strings.Repeat("\x00\xff\n", 10_000)) },
		"another verb":       func(nc *nats.Conn, m *nats.Msg) { beat(nc, m, "explode", "00000000001") },
		"no verb":            func(_ *nats.Conn, m *nats.Msg) { _ = m.Respond([]byte("00000000001")) },
		"an error": func(_ *nats.Conn, m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Rpc-Code": {"unavailable"}, "Rpc-Reason": {"no_responders"}}})
		},
		"a status": func(_ *nats.Conn, m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}}})
		},
		"missing once": func() func(nc *nats.Conn, m *nats.Msg) {
			n := 0
			return func(nc *nats.Conn, m *nats.Msg) {
				if n++; n%2 == 1 {
					beat(nc, m, wire.VerbUnknown, "")
				} else {
					beat(nc, m, wire.VerbBeat, "")
				}
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, caller, s := pair(t)
			var pings atomic.Int32
			requests := peer(t, s, "svc.slow", below, func(nc *nats.Conn, m *nats.Msg) {
				pings.Add(1)
				answer(nc, m)
			})
			done := deadline(t, echoer(caller, "svc.slow"), time.Minute)
			m := <-requests
			assert.Eventually(t, func() bool { return pings.Load() >= 4 })
			select {
			case err := <-done:
				t.Fatal("the call ended: ", err)
			default:
			}
			assert.NoError(t, m.Respond([]byte("at last")))
			assert.NoError(t, <-done)
			assert.Eventually(t, func() bool { return caller.Slots() == 0 })
		})
	}
}

// A control subject outside of the root is a fault of the peer: counted, and never published to.
func TestRow24ControlSubjectOutsideTheRoot(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	var heard atomic.Int32
	for _, trap := range []string{"$JS.>", "svc.trap", "_RPC.svc.i9.>", "_RPCX.>", "_INBOX.trap.>", "_R_.>"} {
		respond(t, nc, trap, func(*nats.Msg) { heard.Add(1) })
	}
	hostile := []string{
		"$JS.API.STREAM.DELETE.ORDERS", "$SYS.REQ.SERVER.PING", "$SRV.PING", "svc.trap", "_RPC.svc.i9.e.svc.add", "_RPC.svc.i9", "_RPC.svc.i9.c",
		"_RPC.svc.i9.c.a.b", "_RPC.svc.i9.c.x", "_RPCX.svc.i1.c.x", "_INBOX.trap.x", "_RPC.svc.i1.c." + strings.Repeat("x", 65), "",
	}
	respond(t, nc, "svc.slow", func(m *nats.Msg) {
		for _, control := range hostile { // i9 is not who acks
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: control, Header: nats.Header(wire.WriteAck("i1"))})
		}
		if string(m.Data) != "cancel" {
			_ = m.Respond([]byte("fine"))
		}
	})
	call := echoer(caller, "svc.slow")
	got, err := call(t.Context(), []byte("x"))
	assert.NoError(t, err)
	assert.Equal(t, string(got), "fine")
	assert.Equal(t, own(caller).Malformed, uint64(len(hostile)))
	assert.Equal(t, own(caller).Late, uint64(0), "they were no replies")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := call(ctx, []byte("cancel"))
		done <- err
	}()
	assert.Eventually(t, func() bool { return own(caller).Malformed == uint64(2*len(hostile)) })
	cancel()
	failed(t, <-done, endpoint.Canceled, "", endpoint.MaybeExecuted)
	assert.Equal(t, caller.Watched(), 0)
	assert.NoError(t, caller.Conn().Flush())
	assert.NoError(t, nc.Flush())
	assert.Equal(t, heard.Load(), int32(0))
}

// An ack that two instances send says nothing about either.
func TestSharedCallsAreNotProbed(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	var pings atomic.Int32
	respond(t, nc, "_RPC.>", func(*nats.Msg) { pings.Add(1) })
	respond(t, nc, "svc.slow", func(m *nats.Msg) {
		for _, id := range []string{"i1", "i2", "i1", "i1"} {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: "_RPC.svc." + id + ".c.x", Header: nats.Header(wire.WriteAck(id))})
		}
	})
	ctx, report := endpoint.Observe(t.Context())
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err := echoer(caller, "svc.slow")(ctx, nil)
	failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
	assert.Equal(t, report.Instance, "")
	assert.True(t, pings.Load() <= 1, "no more than went out with the first")
}

// Frames that name nobody's call end nobody's.
func TestForgedFrames(t *testing.T) {
	service, caller, s := pair(t)
	g, causes := until(t, service, "svc.slow")
	done := deadline(t, echoer(caller, "svc.slow"), time.Minute)
	g.await(t, 1)
	assert.Eventually(t, func() bool { return service.Acked() == 1 && caller.Watched() == 1 })
	nc := foreign(t, s)
	root := "_RPC.svc." + service.ID()
	for _, verb := range []string{"cancel", "CANCEL", "kill", "", "beat", "unknown", "window", "end"} {
		for _, subject := range []string{".c.00000000000", ".c.zzzzzzzzzzz", ".c.x", ".c.x.y", ".c", ".d.x", ".e", ".e.svc.none", ".x"} {
			for _, body := range []string{"", "00000000000", strings.Repeat("00000000001\n", 1000), strings.Repeat("\xff", 10_000), "\n\n"} {
				h := nats.Header{wire.Ctl: {verb}, "Rpc-Whatever": {"x"}}
				assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: root + subject, Header: h, Data: []byte(body)}))
			}
		}
	}
	ask := func(h nats.Header, call, body string) *nats.Msg {
		t.Helper()
		m, err := nc.RequestMsg(&nats.Msg{Subject: root + ".c." + call, Header: h, Data: []byte(body)}, 10*time.Second)
		assert.NoError(t, err)
		return m
	}
	ping := nats.Header{"rpc-ctl": {"ping"}}
	m := ask(ping, "00000000000", "")
	assert.Equal(t, m.Header.Get(wire.Ctl)+string(m.Data), "unknown")
	m = ask(ping, "00000000000", "zzzzzzzzzzz\nx\n\x00")
	assert.Equal(t, m.Header.Get(wire.Ctl), "beat")
	assert.Equal(t, string(m.Data), "00000000000\nzzzzzzzzzzz\nx")
	m = ask(ping, "x", strings.Repeat("a\n", 100_000))
	assert.True(t, len(m.Data) < 1024, "bounded")
	malformed := own(service).Malformed
	for _, reply := range []string{"$JS.API.STREAM.DELETE.ORDERS", "svc.slow", root + ".e.svc.slow"} {
		assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: root + ".c.x", Reply: reply, Header: ping}))
		assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: root + ".e.none", Reply: reply}))
		assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: root + ".e.svc.slow", Reply: reply}))
	}
	assert.Eventually(t, func() bool { return own(service).Malformed == malformed+9 })
	assert.Equal(t, len(causes), 0)
	assert.Equal(t, statsOf(t, service, "svc.slow").InFlight, int64(1))
	g.open()
	assert.NoError(t, <-done)
}

// A stranger's ack finds no call.
func TestStrangersAcks(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet(), bus.WithInboxPrefix("_RI.caller"))
	nc := foreign(t, s)
	requests := make(chan *nats.Msg, 1)
	respond(t, nc, "svc.slow", func(m *nats.Msg) { requests <- m })
	done := deadline(t, echoer(caller, "svc.slow"), time.Minute)
	m := <-requests
	at := lastDot(m.Reply) + 1
	for _, token := range []string{"x", m.Reply[at:at+4] + "00000000000", "0000" + m.Reply[at+4:at+14] + "0"} {
		assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: m.Reply[:at] + token, Reply: below("x"), Header: nats.Header(wire.WriteAck("i1"))}))
	}
	assert.Eventually(t, func() bool { return own(caller).Late == 3 })
	assert.Equal(t, caller.Watched(), 0)
	assert.NoError(t, m.Respond(nil))
	assert.NoError(t, <-done)
}

// A client that may not publish to instances is told once, and calls as before.
func TestDeniedProbes(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "service", Password: "p"},
		embedded.User{Name: "caller", Password: "p", Publish: embedded.Permission{Allow: []string{"svc.>", "$SRV.INFO"}}},
	))
	var denied atomic.Int32
	service := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("service", "p")))
	caller := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("caller", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { denied.Add(1) })))
	g, _ := until(t, service, "svc.slow")
	call := echoer(caller, "svc.slow")
	done := deadline(t, call, time.Minute)
	g.await(t, 1)
	assert.Eventually(t, func() bool { return denied.Load() == 1 && caller.Muted() })
	assert.Eventually(t, func() bool { return caller.Watched() == 0 && caller.Slots() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := call(ctx, nil)
		second <- err
	}()
	g.await(t, 1)
	assert.Eventually(t, func() bool { return service.Acked() == 2 })
	cancel()
	failed(t, <-second, endpoint.Canceled, "", endpoint.MaybeExecuted)
	g.open()
	assert.NoError(t, <-done)
	assert.NoError(t, caller.Conn().Flush())
	assert.Equal(t, denied.Load(), int32(1))
}
