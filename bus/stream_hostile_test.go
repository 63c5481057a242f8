package bus_test

import (
	"context"
	"fmt"
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

// frames are sent one after the other, some with a body.
type frames []struct {
	h    wire.Headers
	body string
}

func itemFrame(seq uint64) wire.Headers { return wire.WriteItem(seq, "") }

func endFrame(count uint64) wire.Headers {
	h := wire.Headers{}
	_ = wire.WriteEnd(h, count, nil, &endpoint.Header{})
	return h
}

// many are items from 1 to n.
func many(n int) (out frames) {
	for i := range n {
		out = append(out, frames{{itemFrame(uint64(i + 1)), "{}"}}...)
	}
	return out
}

// Whatever a service sends that it must not: the caller's stream ends with an error that says so, at once, after what was good of
// it; the service is told to stop, and nothing stays behind.
func TestHostileServices(t *testing.T) {
	const body = `{"Sum":1}`
	for name, c := range map[string]struct {
		sends  frames
		code   endpoint.Code
		reason string
		good   int
	}{
		"a gap":                    {frames{{itemFrame(1), body}, {itemFrame(3), body}}, endpoint.DataLoss, "", 1},
		"an item twice":            {frames{{itemFrame(1), body}, {itemFrame(1), body}}, endpoint.Internal, endpoint.ReasonProtocol, 1},
		"items in disorder":        {frames{{itemFrame(2), body}, {itemFrame(1), body}}, endpoint.DataLoss, "", 0},
		"no credit":                {many(65), endpoint.Internal, endpoint.ReasonProtocol, 64},
		"an end too soon":          {frames{{itemFrame(1), body}, {endFrame(2), ""}}, endpoint.DataLoss, "", 1},
		"an end too late":          {frames{{itemFrame(1), body}, {endFrame(0), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 1},
		"an item after the end":    {frames{{itemFrame(1), body}, {endFrame(1), ""}, {itemFrame(2), body}}, endpoint.Internal, endpoint.ReasonProtocol, 1},
		"two ends":                 {frames{{itemFrame(1), body}, {endFrame(1), ""}, {endFrame(1), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 1},
		"a second open":            {frames{{wire.WriteOpen("evil"), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"a number that is none":    {frames{{wire.Headers{"Rpc-Seq": {"-1"}}, body}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"a beat, twice, and items": {frames{{wire.WriteBeat(1, wire.Grant{}), ""}, {wire.WriteBeat(1, wire.Grant{}), ""}}, endpoint.DataLoss, "", 0},
		"too much credit":          {frames{{wire.WriteWindow(wire.Grant{Messages: 1 << 40}), ""}}, endpoint.Internal, endpoint.ReasonProtocol, 0},
		"unknown":                  {frames{{wire.WriteControl("unknown"), ""}}, endpoint.Unavailable, endpoint.ReasonReplyLost, 0},
		"a unary reply":            {frames{{nil, body}}, endpoint.Unimplemented, endpoint.ReasonProtocol, 0},
		"an item that is no JSON":  {frames{{itemFrame(1), "{"}}, endpoint.Internal, endpoint.ReasonDecode, 0},
		"an unknown type":          {frames{{wire.WriteItem(1, "text/x"), body}}, endpoint.Internal, endpoint.ReasonMediaType, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				caller, evil := n.Connect("caller", quiet()), n.Dial("evil")
				control := "_RPC.svc.evil.c.abc"
				cancels := make(chan bool, 10)
				respond(t, evil, "_RPC.svc.evil.>", func(m *nats.Msg) {
					if m.Header.Get(wire.Ctl) == wire.VerbCancel {
						cancels <- true
					}
				})
				respond(t, evil, "svc.evil", func(m *nats.Msg) {
					say := func(reply string, h wire.Headers, body string) {
						_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: reply, Header: nats.Header(maps.Clone(h)), Data: []byte(body)})
					}
					say(control, wire.WriteOpen("evil"), "")
					for _, f := range c.sends {
						again := ""
						if f.h[wire.Open] != nil {
							again = control
						}
						say(again, f.h, f.body)
					}
				})
				start := time.Now()
				release := make(chan bool)
				time.AfterFunc(time.Second, func() { close(release) })
				good := 0
				var last error
				for _, err := range counter(caller, "svc.evil")(t.Context(), &AddRequest{}) {
					<-release // whatever comes is there by then
					if last = err; err == nil {
						good++
					}
				}
				outcome := endpoint.MaybeExecuted
				if c.code == endpoint.Unimplemented || c.reason == endpoint.ReasonDecode || c.reason == endpoint.ReasonMediaType {
					outcome = endpoint.Executed
				}
				failed(t, last, c.code, c.reason, outcome)
				assert.Equal(t, good, c.good)
				assert.True(t, time.Since(start) <= time.Second, time.Since(start).String())
				if c.code != endpoint.Unimplemented {
					<-cancels
				}
				time.Sleep(time.Minute)
				assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
			})
		})
	}
}

// A service must not draw its caller's frames where no instance is.
func TestStreamControlOutsideOfTheRoot(t *testing.T) {
	for _, control := range []string{"", "$JS.API.STREAM.DELETE.ORDERS", "svc.add", "_RPC.svc.other.c.abc", "_RPC.svc.evil.c.*"} {
		synctest.Test(t, func(t *testing.T) {
			n := bustest.NewNet(t)
			caller, evil := n.Connect("caller", quiet()), n.Dial("evil")
			var said []string
			respond(t, n.Dial("tap"), ">", func(m *nats.Msg) { said = append(said, m.Subject) })
			respond(t, evil, "svc.evil", func(m *nats.Msg) {
				_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: control, Header: nats.Header(wire.WriteOpen("evil"))})
			})
			_, err := collect(counter(caller, "svc.evil")(t.Context(), &AddRequest{}))
			failed(t, err, endpoint.Internal, endpoint.ReasonProtocol, endpoint.MaybeExecuted)
			assert.Equal(t, own(caller).Malformed, uint64(1))
			time.Sleep(time.Minute)
			synctest.Wait()
			assert.Equal(t, len(said), 2, fmt.Sprint(said)) // the request and the open
			assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
		})
	}
}

// Whatever a caller sends that it must not: the handler's context ends, the caller is told, and nothing stays behind.
func TestHostileCallers(t *testing.T) {
	const body = `{"A":1}`
	half := wire.WriteHalf
	for name, c := range map[string]struct {
		kind   string
		sends  frames
		code   string
		reason string
	}{
		"a gap":                     {"client", frames{{itemFrame(2), body}}, "data_loss", ""},
		"an item twice":             {"client", frames{{itemFrame(1), body}, {itemFrame(1), body}}, "invalid_argument", endpoint.ReasonProtocol},
		"no credit":                 {"stuck", many(65), "invalid_argument", endpoint.ReasonProtocol},
		"a wrong count":             {"client", frames{{itemFrame(1), body}, {half(2), ""}}, "data_loss", ""},
		"a count too small":         {"client", frames{{itemFrame(1), body}, {half(0), ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"an item after the end":     {"stuck", frames{{half(0), ""}, {itemFrame(1), body}}, "invalid_argument", endpoint.ReasonProtocol},
		"two ends":                  {"stuck", frames{{half(0), ""}, {half(0), ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"an item to a server's":     {"server", frames{{itemFrame(1), body}}, "invalid_argument", endpoint.ReasonProtocol},
		"too much credit":           {"server", frames{{wire.WriteWindow(wire.Grant{Bytes: 1 << 40}), ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"a second open":             {"server", frames{{wire.WriteOpen("evil"), ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"an end of the service's":   {"stuck", frames{{endFrame(0), ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"what can't be read":        {"server", frames{{wire.Headers{"Rpc-Ctl": {"window"}}, ""}}, "invalid_argument", endpoint.ReasonProtocol},
		"no frame at all":           {"server", frames{{nil, "x"}}, "invalid_argument", endpoint.ReasonProtocol},
		"an item that is no JSON":   {"client", frames{{itemFrame(1), "{"}}, "invalid_argument", endpoint.ReasonDecode},
		"a verb that is not known":  {"server", frames{{wire.WriteControl("dance"), ""}, {wire.WriteControl("cancel"), ""}}, "canceled", ""},
		"behind, and still so":      {"stuck", frames{{wire.WriteBeat(2, wire.Grant{}), ""}, {wire.WriteBeat(2, wire.Grant{}), ""}}, "data_loss", ""},
		"the end was lost":          {"client", frames{{itemFrame(1), body}, {wire.WriteBeat(2, wire.Grant{}), ""}, {wire.WriteBeat(2, wire.Grant{}), ""}}, "data_loss", ""},
		"a cancel that comes twice": {"stuck", frames{{wire.WriteControl("cancel"), ""}, {wire.WriteControl("cancel"), ""}}, "canceled", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, evil := n.Connect("service", quiet()), n.Dial("evil")
				causes := make(chan cause, 1)
				serve(t, service, "svc.server", endpoint.NewServerStream(silentStream(causes)))
				serve(t, service, "svc.client", endpoint.NewClientStream(total))
				serve(t, service, "svc.stuck", endpoint.NewClientStream(func(ctx context.Context, _ inSeq) (*AddResponse, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}))
				word := map[string]string{"server": "server"}[c.kind]
				if word == "" {
					word = "client"
				}
				sub, err := evil.SubscribeSync("_INBOX.evil")
				assert.NoError(t, err)
				assert.NoError(t, evil.PublishMsg(&nats.Msg{
					Subject: "svc." + c.kind, Reply: "_INBOX.evil", Header: nats.Header{"Rpc-Stream": {word}}, Data: []byte("{}"),
				}))
				open, err := sub.NextMsg(time.Second)
				assert.NoError(t, err)
				assert.Equal(t, open.Header.Get("Rpc-Open"), service.ID())
				for _, f := range c.sends {
					assert.NoError(t, evil.PublishMsg(&nats.Msg{Subject: open.Reply, Header: nats.Header(maps.Clone(f.h)), Data: []byte(f.body)}))
				}
				end, err := sub.NextMsg(time.Second)
				assert.NoError(t, err)
				assert.Equal(t, end.Header.Get("Rpc-Code"), c.code)
				assert.Equal(t, end.Header.Get("Rpc-Reason"), c.reason)
				assert.Equal(t, len(end.Data), 0)
				synctest.Wait()
				assert.Equal(t, service.Streams(), 0)
				assert.Equal(t, statsOf(t, service, "svc."+c.kind).InFlight, int64(0))
			})
		})
	}
}

// A frame about a call that is not here is answered where it asks for that, and not otherwise.
func TestFramesForNobody(t *testing.T) {
	service, _, s := pair(t)
	serveStreams(t, service)
	nc := foreign(t, s)
	prefix, next := inbox(t, nc)
	control := "_RPC.svc." + service.ID() + ".c.00000000001"
	assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: control, Header: nats.Header(itemFrame(1)), Data: []byte("x")}))
	assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: control, Reply: "$SYS.x", Header: nats.Header(wire.WriteBeat(0, wire.Grant{}))}))
	assert.NoError(t, nc.PublishMsg(&nats.Msg{Subject: control, Reply: prefix + "x", Header: nats.Header(wire.WriteBeat(0, wire.Grant{}))}))
	assert.Equal(t, next().Header, nats.Header{"Rpc-Ctl": {"unknown"}})
	assert.Eventually(t, func() bool { return own(service).Malformed == 1 })
}

// A caller that grants one item at a time, or none at all, gets no more than that.
func TestStingyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, miser := n.Connect("service", quiet()), n.Dial("miser")
		serve(t, service, "svc.count", endpoint.NewServerStream(count))
		sub, err := miser.SubscribeSync("_INBOX.miser")
		assert.NoError(t, err)
		assert.NoError(t, miser.PublishMsg(&nats.Msg{
			Subject: "svc.count", Reply: "_INBOX.miser", Header: nats.Header{"Rpc-Stream": {"server"}, "Rpc-Window": {"1;1000"}}, Data: []byte(`{"A":1000}`),
		}))
		open, err := sub.NextMsg(time.Second)
		assert.NoError(t, err)
		for i := range uint64(5) {
			m, err := sub.NextMsg(time.Second)
			assert.NoError(t, err)
			assert.Equal(t, m.Header.Get("Rpc-Seq"), fmt.Sprint(i+1))
			_, err = sub.NextMsg(time.Second)
			assert.ErrorIs(t, err, nats.ErrTimeout)
			assert.NoError(t, miser.PublishMsg(&nats.Msg{Subject: open.Reply, Header: nats.Header(wire.WriteWindow(wire.Grant{Messages: i + 2, Bytes: 10_000}))}))
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); { // it says nothing any more
			m, err := sub.NextMsg(time.Minute)
			if err == nil && m.Header.Get("Rpc-End") != "" {
				assert.Equal(t, m.Header.Get("Rpc-End")+m.Header.Get("Rpc-Reason"), "6"+endpoint.ReasonInstanceSilent)
				break
			}
		}
		synctest.Wait()
		assert.Equal(t, service.Streams(), 0)
	})
}
