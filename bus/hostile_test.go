package bus_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// A request's reply subject is the peer's choice: nobody may make us publish to the broker, or to ourselves.
func TestHostileReplySubjectsAreDropped(t *testing.T) {
	service, _, s := free(t)
	var ran atomic.Int32
	count := endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	})
	serve(t, service, "svc.add", count)
	serve(t, service, "_own.add", count)
	nc := foreign(t, s)
	var heard atomic.Int32
	respond(t, nc, "$JS.>", func(*nats.Msg) { heard.Add(1) })
	hostile := []string{
		"$JS.API.STREAM.DELETE.ORDERS", "$SRV.PING", "$SYS.REQ.SERVER.PING", "svc.add", "_own.add", "svc.add.~f", "svc.add.x.y",
		strings.Repeat("r", 1025), "_INBOX." + strings.Repeat("r", 4070), // of the longest, a reply's line would be over 4 KiB
	}
	for _, reply := range hostile {
		assert.NoError(t, nc.PublishRequest("svc.add", reply, []byte(`{"A":1,"B":13}`)))
		assert.NoError(t, nc.PublishRequest("$SRV.PING", reply, nil))
	}
	// Each request once, each ping by both services.
	assert.Eventually(t, func() bool { return own(service).Malformed == uint64(3*len(hostile)) }, "dropped and counted")
	assert.NoError(t, service.Conn().Flush())
	assert.NoError(t, nc.Flush())
	assert.Equal(t, ran.Load(), int32(0))
	assert.Equal(t, heard.Load(), int32(0))
	_, err := adder(service, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err, "the next one is served")
	for _, reply := range []string{"svc.address", "svc", "svc.ad.d", strings.Repeat("r", 1024)} { // near, and nobody's
		sub, err := nc.SubscribeSync(reply)
		assert.NoError(t, err)
		assert.NoError(t, nc.PublishRequest("svc.add", reply, []byte(`{"A":1,"B":2}`)))
		_, err = sub.NextMsg(10 * time.Second)
		assert.NoError(t, err, reply)
	}
	// What is not served any more is nobody's endpoint.
	assert.NoError(t, service.Stop(t.Context(), "_own.add"))
	got := make(chan *nats.Msg, 1)
	respond(t, nc, "_own.add", func(m *nats.Msg) { got <- m })
	assert.NoError(t, nc.PublishRequest("svc.add", "_own.add", []byte(`{"A":1,"B":2}`)))
	select {
	case m := <-got:
		assert.Equal(t, string(m.Data), `{"Sum":3}`)
	case <-time.After(10 * time.Second):
		t.Fatal("no reply")
	}
}

// Renamed roots are guarded as the usual ones are.
func TestHostileRepliesBelowRenamedRoots(t *testing.T) {
	b := alone(t, quiet(), bus.WithRoots("_CTRL", "_FIND"))
	serve(t, b, "svc.add", endpoint.New(add))
	for i, reply := range []string{"_FIND.PING", "_CTRL.svc.i9.e.svc.add", "_CTRL.x"} {
		assert.NoError(t, b.Conn().PublishRequest("svc.add", reply, []byte(`{"A":1,"B":2}`)))
		assert.Eventually(t, func() bool { return own(b).Malformed == uint64(i+1) }, reply)
	}
	for _, reply := range []string{"_FINDER.x", "_RPC.x"} { // nobody's here
		sub, err := b.Conn().SubscribeSync(reply)
		assert.NoError(t, err)
		assert.NoError(t, b.Conn().PublishRequest("svc.add", reply, []byte(`{"A":1,"B":2}`)))
		_, err = sub.NextMsg(10 * time.Second)
		assert.NoError(t, err, reply)
	}
}

// An endpoint above the bus's own inbox does not cut the bus off from itself.
func TestOwnInboxBelowAnEndpoint(t *testing.T) {
	b := alone(t, quiet(), bus.WithInboxPrefix("own"))
	serve(t, b, "own", endpoint.New(add))
	_, err := adder(b, "own")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.NoError(t, b.Ready(t.Context()))
}

// What a responder puts into the Reply field of its answer is not published to.
func TestControlSubjectsAreNotFollowed(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	var heard atomic.Int32
	respond(t, nc, "trap.>", func(*nats.Msg) { heard.Add(1) })
	respond(t, nc, "svc.echo", func(m *nats.Msg) {
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: "trap.delete", Data: m.Data, Header: nats.Header{"Rpc-Next": {"x"}}})
	})
	got, err := echoer(caller, "svc.echo")(t.Context(), []byte("x"))
	assert.NoError(t, err)
	assert.Equal(t, string(got), "x")
	assert.NoError(t, caller.Conn().Flush())
	assert.NoError(t, nc.Flush())
	assert.Equal(t, heard.Load(), int32(0))
}

// A peer that answers to all inboxes at once reaches no call but the one it was asked by.
func TestRepliesReachTheirCallOnly(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet(), bus.WithInboxPrefix("_RI.caller"))
	nc := foreign(t, s)
	asked := make(chan *nats.Msg, 64)
	respond(t, nc, "svc.mute", func(m *nats.Msg) { asked <- m })
	call := echoer(caller, "svc.mute")
	results := make(chan string, 2)
	ask := func(body string) {
		got, err := call(context.Background(), []byte(body))
		if err != nil {
			got = []byte(err.Error())
		}
		results <- body + "=" + string(got)
	}
	go ask("a")
	a := <-asked
	go ask("b")
	b := <-asked
	forge := func(reply string, edit func([]byte)) string {
		token := []byte(reply)
		edit(token)
		return string(token)
	}
	idAt := len(a.Reply) - len(a.Reply[lastDot(a.Reply)+1:])
	for _, forged := range []string{
		a.Reply[:idAt] + "x",
		a.Reply[:idAt] + "0000",
		a.Reply[:idAt+4] + b.Reply[idAt+4:], // the slot of one, the secret of the other
		b.Reply[:idAt+4] + a.Reply[idAt+4:],
		forge(a.Reply, func(t []byte) { t[idAt+4] ^= 1 }),
		forge(a.Reply, func(t []byte) { t[idAt+14] ^= 1 }),
		forge(a.Reply, func(t []byte) { copy(t[idAt:], "zzzz") }),
		forge(a.Reply, func(t []byte) { copy(t[idAt+4:], "00000000000") }),
	} {
		assert.NoError(t, nc.Publish(forged, []byte("forged")))
	}
	assert.NoError(t, nc.Publish(b.Reply, []byte("B")))
	assert.Equal(t, <-results, "b=B")
	assert.NoError(t, nc.Publish(b.Reply, []byte("again")))
	assert.NoError(t, nc.Publish(a.Reply, []byte("A")))
	assert.Equal(t, <-results, "a=A")
	assert.Eventually(t, func() bool { return own(caller).Late == 9 }, "eight forged ones and one that came twice")
}

func lastDot(s string) int {
	for i := len(s) - 1; ; i-- {
		if s[i] == '.' {
			return i
		}
	}
}

// panicky is a logger's handler that fails its user.
type panicky struct{ slog.Handler }

func (panicky) Enabled(context.Context, slog.Level) bool  { return true }
func (panicky) Handle(context.Context, slog.Record) error { panic("the disk is full") }

func TestLoggerThatPanicsHarmsNoOne(t *testing.T) {
	b := alone(t, bus.WithLogger(slog.New(panicky{slog.DiscardHandler})))
	serve(t, b, "svc.panic", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) { panic("so it goes") }))
	for range 3 {
		_, err := adder(b, "svc.panic")(t.Context(), &AddRequest{})
		failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
	}
}
