package bus_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// stranger is a peer in the account of a service and its caller who may do everything, and wants no good.
type stranger struct {
	s     *embedded.Server // nil: it is in another process, as is the service
	id    string           // of the service
	nc    *nats.Conn
	root  string                         // of the instance, with the dot
	inbox string                         // of the caller, with the dot
	call  endpoint.Unary[[]byte, []byte] // to where the stranger is the responder
	pace  <-chan time.Time               // of its messages; nil: as fast as it can
}

// intrude puts a stranger between an instance and a caller.
func intrude(t testing.TB, nc *nats.Conn, id string, caller *bus.Bus) *stranger {
	t.Helper()
	x := &stranger{nc: nc, id: id, root: "_RPC.svc." + id + ".", call: echoer(caller, "svc.evil")}
	var once sync.Once
	respond(t, x.nc, "svc.evil", func(m *nats.Msg) {
		once.Do(func() { x.inbox = m.Reply[:lastDot(m.Reply)+1] })
		replies[string(m.Data)](x, m)
	})
	respond(t, x.nc, "_RPC.svc.i1.>", func(m *nats.Msg) { x.answer(m) })
	got, err := x.call(t.Context(), []byte("right"))
	assert.NoError(t, err)
	assert.Equal(t, string(got), "right")
	return x
}

func (x *stranger) publish(m *nats.Msg) {
	if x.pace != nil {
		<-x.pace
	}
	_ = x.nc.PublishMsg(m)
}

func (x *stranger) right(m *nats.Msg) { x.publish(&nats.Msg{Subject: m.Reply, Data: []byte("right")}) }

func (x *stranger) ack(m *nats.Msg, id, control string) {
	x.publish(&nats.Msg{Subject: m.Reply, Reply: control, Header: nats.Header(wire.WriteAck(id))})
}

// answer is what the stranger says to probes: that calls are missing that nobody asked for, in many ways.
func (x *stranger) answer(m *nats.Msg) {
	for _, verb := range []string{wire.VerbBeat, wire.VerbCancel, wire.VerbPing, "", "window", strings.Repeat("v", 10_000)} {
		for _, body := range []string{"00000000000", strings.Repeat("zzzzzzzzzzz\n", 300), "\x00\xff\n\n", ""} {
			x.publish(&nats.Msg{Subject: m.Reply, Reply: "$JS.API.STREAM.DELETE.ORDERS", Header: nats.Header{wire.Ctl: {verb}}, Data: []byte(body)})
		}
	}
}

// lines are so many headers.
func lines(n int) nats.Header {
	h := make(nats.Header, n)
	for i := range n {
		h[fmt.Sprintf("a%d", i)] = []string{""}
	}
	return h
}

// bomb is as many headers as fit in a message of a megabyte; decoding them costs whoever receives it.
var bomb = sync.OnceValue(func() string {
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	for i := range 100_000 {
		fmt.Fprintf(&b, "%x:\r\n", i+1<<16)
	}
	return b.String() + "\r\n"
})

// replies are what the stranger does to the calls that it is asked for; each of them ends with the right reply unless it is
// among notTaken.
var replies = map[string]func(x *stranger, m *nats.Msg){
	"right": (*stranger).right,
	"double": func(x *stranger, m *nats.Msg) {
		x.right(m)
		for range 5 {
			x.publish(&nats.Msg{Subject: m.Reply, Data: []byte("wrong")})
		}
	},
	"guesses": func(x *stranger, m *nats.Msg) {
		for i := range 20 {
			slot := fmt.Sprintf("%04d", i)
			for _, secret := range []string{"00000000000", "00000000001", "zzzzzzzzzzz", m.Reply[len(x.inbox)+5:len(x.inbox)+15] + "0"} {
				x.publish(&nats.Msg{Subject: x.inbox + slot + secret, Data: []byte("wrong")})
				x.publish(&nats.Msg{Subject: x.inbox + slot + secret, Reply: below("x"), Header: nats.Header(wire.WriteAck("i1"))})
			}
		}
		x.right(m)
	},
	"acks": func(x *stranger, m *nats.Msg) {
		for i := range 200 {
			x.ack(m, "i1", below(fmt.Sprintf("%011d", i)))
		}
		x.right(m)
	},
	"acks of others": func(x *stranger, m *nats.Msg) {
		x.ack(m, x.id, x.root+"c.00000000000") // which is asked about it
		x.ack(m, "i9", "_RPC.svc.i9.c.x")
		x.right(m)
	},
	"controls": func(x *stranger, m *nats.Msg) {
		for _, control := range []string{
			"$JS.API.STREAM.DELETE.ORDERS", "$SYS.REQ.SERVER.PING", "svc.add", "_RPC.svc.i9.c.x", "_RPC.svc.i1.e.svc.add", "trap", "_RPC.svc.i1.c.a.b",
			"_RPC.svc.i1.c.>", "_RPC.*.i1.c.x", "",
		} {
			x.ack(m, "i1", control)
		}
		x.right(m)
	},
	"acks of 100,000 lines": func(x *stranger, m *nats.Msg) {
		h := lines(1000)
		h[wire.Ack] = []string{"i1"}
		x.publish(&nats.Msg{Subject: m.Reply, Reply: below("x"), Header: h})
		x.right(m)
	},
	"probed": func(x *stranger, m *nats.Msg) { // and the probes are answered, see answer
		x.ack(m, "i1", below(m.Reply[len(x.inbox):len(x.inbox)+15]))
		time.AfterFunc(30*time.Millisecond, func() { x.right(m) })
	},
	"status": func(x *stranger, m *nats.Msg) {
		x.publish(&nats.Msg{Subject: m.Reply, Header: nats.Header{"Status": {"503"}, "Nats-Subject": {"svc.evil"}, "X-Own": {"1"}}, Data: []byte("right")})
	},
	"many headers": func(_ *stranger, m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: lines(1000), Data: []byte("wrong")})
	},
	"bomb":    func(x *stranger, m *nats.Msg) { _ = rawPublish(x.s, m.Reply, "", bomb(), "wrong") },
	"garbled": func(x *stranger, m *nats.Msg) { _ = rawPublish(x.s, m.Reply, "", garbled[2], "wrong") },
	"version": func(x *stranger, m *nats.Msg) { _ = rawPublish(x.s, m.Reply, "", "NATS/2.0\r\nX: 1\r\n\r\n", "wrong") },
}

// notTaken are the replies that no caller takes.
var notTaken = map[string]string{
	"many headers": endpoint.ReasonHeaderTooLarge, "bomb": endpoint.ReasonHeaderTooLarge,
	"garbled": endpoint.ReasonProtocol, "version": endpoint.ReasonProtocol,
}

// hooks are reply subjects that the service must not publish to.
func (x *stranger) hooks() []string {
	return []string{
		"$JS.API.STREAM.DELETE.ORDERS", "$SYS.REQ.SERVER.PING", "$SRV.PING", "svc.add", "svc.add.x", "_RPC.svc.i9.e.svc.add", "_RPC.svc.i9.c.x",
		x.root + "e.svc.add", x.root + "c.x", ">", "*.add", "_RI.>", strings.Repeat("r", 1025),
	}
}

// requests are what the stranger asks of the service, without an answer; each returns how many of them are counted as malformed.
var requests = map[string]func(x *stranger) uint64{
	"hooks": func(x *stranger) uint64 {
		for _, reply := range x.hooks() {
			ping := nats.Header(wire.WriteControl(wire.VerbPing))
			x.publish(&nats.Msg{Subject: "svc.add", Reply: reply, Data: []byte(`{"A":1,"B":13}`)})
			x.publish(&nats.Msg{Subject: "$SRV.PING", Reply: reply})
			x.publish(&nats.Msg{Subject: x.root + "e.svc.add", Reply: reply, Data: []byte(`{"A":1,"B":2}`)})
			x.publish(&nats.Msg{Subject: x.root + "e.svc.none", Reply: reply})
			x.publish(&nats.Msg{Subject: x.root + "c.00000000000", Reply: reply, Header: ping})
		}
		return uint64(5 * len(x.hooks()))
	},
	"frames": func(x *stranger) uint64 {
		for _, verb := range []string{"cancel", "ping", "beat", "unknown", "end", "", "\xff"} {
			for _, body := range []string{"", "00000000000", strings.Repeat("00000000001\n", 1000), strings.Repeat("\xff", 10_000), "\n\n"} {
				x.publish(&nats.Msg{Subject: x.root + "c.00000000000", Reply: x.inbox + "x", Header: nats.Header{wire.Ctl: {verb}}, Data: []byte(body)})
				x.publish(&nats.Msg{Subject: x.root + "c.a.b", Header: nats.Header{wire.Ctl: {verb}}, Data: []byte(body)})
				x.publish(&nats.Msg{Subject: x.root + "c.x", Data: []byte(body)})
			}
		}
		x.publish(&nats.Msg{Subject: x.root + "c.x", Header: lines(1000)})
		return 0
	},
	"headers": func(x *stranger) uint64 {
		bad := []nats.Header{
			{"Rpc-Attempt": {"2147483648"}},
			{"Rpc-Attempt": {strings.Repeat("9", 1000)}},
			{"Rpc-Attempt": {"-1"}},
			{"Rpc-Timeout": {"-5S"}},
			{"Rpc-Timeout": {"9223372036854775808n"}},
			{"Rpc-Timeout": {"1e9S"}},
			{"Rpc-Timeout": {"1S", "2S"}},
			{"Rpc-Sent": {"9223372036854775807"}},
			{"Rpc-Sent": {"-1"}},
			{"rpc-ack": {"2"}},
			lines(513),
			{"X": {strings.Repeat("x", 9000)}},
		}
		for _, h := range bad {
			x.publish(&nats.Msg{Subject: "svc.add", Reply: x.inbox + "foreign", Header: h, Data: []byte(`{}`)})
		}
		tokens := []string{"~d5", "~d9223372036854775808n", "~d1S~d1S", "~szzzzzzzzzzzzzzzz", "~m"}
		for _, pairs := range tokens {
			x.publish(&nats.Msg{Subject: "svc.add", Reply: x.inbox + "abcdefghijkl" + pairs, Data: []byte(`{}`)})
		}
		return uint64(len(bad) + len(tokens))
	},
	"garbage": func(x *stranger) uint64 {
		for _, block := range append(garbled, "NATS/2.0\r\nX: 1\r\n\r\n") {
			_ = rawPublish(x.s, "svc.add", x.inbox+"foreign", block, `{}`)
		}
		return uint64(len(garbled) + 1)
	},
	"bombs": func(x *stranger) uint64 {
		_ = rawPublish(x.s, "svc.add", x.inbox+"foreign", bomb(), `{}`)
		_ = rawPublish(x.s, x.root+"c.00000000000", x.inbox+"foreign", bomb(), "")
		return 1 // a frame without a verb is none
	},
}

// What a stranger does changes no reply, is counted, and makes nobody publish where no one may be.
func TestStrangersGetNowhere(t *testing.T) {
	if eager() {
		t.Skip("frames without asking go to who only listens along, as this test does")
	}
	for name, meet := range map[string]func(testing.TB, ...embedded.Option) (service, caller *bus.Bus, s *embedded.Server){
		"with the least grants": pair, // the broker would deny, and fail the test
		"with all of them":      free,
	} {
		t.Run(name, func(t *testing.T) {
			service, caller, s := meet(t)
			affront(t, service, caller, s)
		})
	}
}

// affront lets a stranger do all that it knows, one thing after the other.
func affront(t *testing.T, service, caller *bus.Bus, s *embedded.Server) {
	t.Helper()
	x := intrude(t, foreign(t, s), service.ID(), caller)
	x.s = s
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	}))
	sum := adder(caller, "svc.add")
	g, causes := until(t, service, "svc.slow")
	slow := deadline(t, echoer(caller, "svc.slow"), time.Minute)
	g.await(t, 1)
	assert.Eventually(t, func() bool { return service.Acked() == 1 && caller.Watched() == 1 })
	tap := listen(t, s, service.ID(), "i1") // i9 is not there
	for name, strike := range requests {
		before, want := own(service).Malformed, strike(x)
		assert.NoError(t, x.nc.Flush())
		assert.Eventually(t, func() bool { return own(service).Malformed >= before+want }, name)
		_, err := sum(t.Context(), &AddRequest{1, 2}) // served after all of it
		assert.NoError(t, err, name)
		assert.Equal(t, own(service).Malformed, before+want, name)
	}
	assert.Equal(t, ran.Load(), int32(len(requests)), "none of it was run")
	for name := range replies {
		got, err := x.call(t.Context(), []byte(name))
		if reason, bad := notTaken[name]; bad {
			outcome := endpoint.MaybeExecuted
			if reason == endpoint.ReasonHeaderTooLarge {
				outcome = endpoint.Executed
			}
			failed(t, err, endpoint.Internal, reason, outcome)
			continue
		}
		assert.NoError(t, err, name)
		assert.Equal(t, string(got), "right", name)
	}
	assert.Eventually(t, func() bool { return own(caller).Malformed >= 12 }, "ten subjects that are none, and two that can't be read")
	assert.Eventually(t, func() bool { return own(caller).Late >= 5+160 }, "doubles and guesses, some of which come after the reply")
	assert.Equal(t, len(causes)+len(slow), 0, "who waited waits")
	g.open()
	assert.NoError(t, <-slow)
	assert.Eventually(t, func() bool { return caller.Slots() == 0 && service.Acked() == 0 && caller.Watched() == 0 })
	tap.end(t, service.Conn(), caller.Conn(), x.nc)
}
