package bus_test

import (
	"bytes"
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

// entries are n of a frame, each with a name and a body of so many bytes.
func entries(n int, name string, body int) []byte {
	var frame []byte
	for range n {
		frame = wire.AppendEntry(frame, name, make([]byte, body))
	}
	return frame
}

// What is no frame is refused, is counted, and nothing of it is executed. Where an answer would do harm there is none.
func TestBatchHostile_frames(t *testing.T) {
	service, _, s := framers(t)
	var ran atomic.Int32
	serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		return r, nil
	}))
	f := newFramer(t, foreign(t, s))
	token := id(1) + "~d1S"
	good := entries(1, token, 3)
	for name, c := range map[string]struct {
		frame  []byte
		reply  string
		header string // a block as it stands
		reason string // "" there is no answer
	}{
		"nothing":               {frame: nil, reason: endpoint.ReasonProtocol},
		"garbage":               {frame: []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01 {}"), reason: endpoint.ReasonProtocol},
		"JSON":                  {frame: []byte(`{"A":1,"B":2}`), reason: endpoint.ReasonProtocol},
		"cut":                   {frame: entries(3, token, 100)[:200], reason: endpoint.ReasonProtocol},
		"too many":              {frame: entries(wire.MaxEntries+1, token, 1), reason: endpoint.ReasonProtocol},
		"too much":              {frame: make([]byte, wire.MaxBatch+1), reason: endpoint.ReasonProtocol},
		"much too much":         {frame: bytes.Repeat(good, 1<<20/len(good)), reason: endpoint.ReasonProtocol},
		"a long body":           {frame: append(bytes.Clone(good), entries(1, token, wire.MaxEntryBody+1)...), reason: endpoint.ReasonProtocol},
		"a long name":           {frame: append(bytes.Clone(good), entries(1, token+strings.Repeat("0", wire.MaxToken), 1)...), reason: endpoint.ReasonProtocol},
		"no token":              {frame: append(bytes.Clone(good), entries(1, "x", 1)...), reason: endpoint.ReasonProtocol},
		"a name with lines":     {frame: append(bytes.Clone(good), entries(1, "0001\r\nRpc-Code: x~d1S", 1)...), reason: endpoint.ReasonProtocol},
		"a subject for a name":  {frame: append(bytes.Clone(good), entries(1, "$JS.API.STREAM.DELETE.ORDERS~d1S", 1)...), reason: endpoint.ReasonProtocol},
		"headers":               {frame: good, header: "NATS/1.0\r\nX: 1\r\n\r\n", reason: endpoint.ReasonMalformedHeader},
		"headers of a request":  {frame: good, header: "NATS/1.0\r\nRpc-Timeout: 1S\r\n\r\n", reason: endpoint.ReasonMalformedHeader},
		"headers that are none": {frame: good, header: garbled[2], reason: endpoint.ReasonMalformedHeader},
		"to the broker":         {frame: good, reply: "$JS.API.STREAM.DELETE.ORDERS"},
		"to an endpoint":        {frame: good, reply: "svc.echo.~f"},
		"to an instance":        {frame: good, reply: "_RPC.svc." + service.ID() + ".c.x"},
		"to everybody":          {frame: good, reply: "_RI.>"},
		"to nobody":             {frame: good, reply: "none"},
	} {
		f.mu.Lock()
		clear(f.said)
		f.mu.Unlock()
		before, reply := own(service).Malformed, c.reply
		if reply == "" {
			reply = f.inbox + "." + id(99) + "~a1"
		}
		switch {
		case c.header != "":
			assert.NoError(t, rawPublish(s, "svc.echo.~f", reply, c.header, string(c.frame)))
		case reply == "none":
			assert.NoError(t, f.nc.Publish("svc.echo.~f", c.frame))
		default:
			assert.NoError(t, f.nc.PublishMsg(&nats.Msg{Subject: "svc.echo.~f", Reply: reply, Data: c.frame}))
		}
		assert.Eventually(t, func() bool { return own(service).Malformed == before+1 }, name)
		if c.reason != "" {
			assert.Eventually(t, func() bool { return len(f.of("")) == 1 }, name)
			h := f.of("")[0].Header
			assert.Equal(t, strings.Join([]string{h.Get(wire.Code), h.Get(wire.Reason), h.Get(wire.OutcomeHeader)}, " "), "invalid_argument "+c.reason+" not_executed", name)
		}
	}
	assert.Equal(t, ran.Load(), int32(0))
	f.send(t, "svc.echo", 3, func(int) (*wire.Request, []byte) { return meta(time.Second), []byte("x") })
	assert.Eventually(t, func() bool { return len(f.of(id(2))) == 1 && ran.Load() == 3 })
}

// A frame that came through an import is refused, and its calls go alone.
func TestBatchHostile_import(t *testing.T) {
	s := accounts(t, exported(t), "response_type: singleton", "share: true")
	service, client := as(t, s, "service", "_RI.svc", bus.Framing(), content(t)), as(t, s, "client", "_RI.cli", bus.Eager(), content(t))
	var ran census
	serve(t, service, "svc.add", endpoint.New(ran.add))
	seen := batches(t, foreign(t, s, nats.UserInfo("peer", "peer")), "svc.add")
	for range 3 {
		ran.check(t, client, 200)
	}
	assert.True(t, seen.Load() > 0, "frames")
	assert.True(t, own(service).Malformed > 0, "were refused")
}

// evil is what a peer says to a frame of calls, before it answers each of them.
type evil func(x *evilPeer)

type evilPeer struct {
	nc      *nats.Conn
	m       *nats.Msg
	frame   string   // the id of the frame
	ids     []string // of its calls
	entries []wire.Entry
}

func (x *evilPeer) say(h nats.Header, body []byte) {
	_ = x.nc.PublishMsg(&nats.Msg{Subject: x.m.Reply, Header: h, Data: body})
}

// part says the same of all of these.
func (x *evilPeer) part(body string, ids ...string) {
	var data []byte
	for _, id := range ids {
		data = wire.AppendEntry(data, id, []byte(body))
	}
	x.say(nil, data)
}

// right answers each call with its own body.
func (x *evilPeer) right() {
	for i, e := range x.entries {
		x.part(string(e.Body(x.m.Data)), x.ids[i])
	}
}

var (
	harmless = map[string]evil{
		"unknown ids": func(x *evilPeer) {
			x.part("wrong", "x", id(61), id(1<<20), strings.Repeat("z", 15), strings.Repeat("~", 15), x.ids[0]+"x", x.ids[0][:14])
		},
		"the frame's id": func(x *evilPeer) {
			x.part("wrong", x.frame, x.frame+"~a1")
			x.say(nats.Header{wire.EntryHeader: {x.frame}}, nil)
		},
		"guesses": func(x *evilPeer) {
			near := x.ids[0][4:14] + "0" // the secret, but for its last digit
			if near == x.ids[0][4:] {
				near = x.ids[0][4:14] + "1"
			}
			for i := range 20 {
				x.part("wrong", string(wire.AppendID(nil, i, 0)), string(wire.AppendID(nil, i, 1)), x.ids[0][:4]+near, fmt.Sprintf("%04d", i)+near)
			}
		},
		"a part in a part": func(x *evilPeer) { x.part(string(wire.AppendEntry(nil, x.ids[0], []byte("wrong"))), x.frame) },
		"no entry's": func(x *evilPeer) {
			for _, v := range []string{"", "x", "~", id(61), strings.Repeat("z", 5000), x.frame + "~a1", " "} {
				x.say(nats.Header{wire.EntryHeader: {v}, wire.Code: {"internal"}}, nil)
				x.say(nats.Header{wire.EntryHeader: {v}}, []byte("wrong"))
			}
		},
		"garbled": func(x *evilPeer) {
			for range 3 {
				x.say(nats.Header{wire.EntryHeader: {""}, "X": {"\x00"}}, nil)
			}
		},
		"acks": func(x *evilPeer) {
			for range 10 {
				h := nats.Header(wire.WriteAck("i1"))
				h[wire.EntryHeader] = []string{x.ids[0]}
				_ = x.nc.PublishMsg(&nats.Msg{Subject: x.m.Reply, Reply: "$JS.API.STREAM.DELETE.ORDERS", Header: h})
			}
		},
		"a stream": func(x *evilPeer) { x.say(nil, []byte(`{"stream":"KEEPS","seq":17}`)) },
		"double": func(x *evilPeer) {
			x.right()
			for _, id := range x.ids {
				x.part("wrong", id, id, id, id, id, id)
				x.say(nats.Header{wire.EntryHeader: {id}, wire.Code: {"internal"}}, nil)
			}
		},
	}
	harmful = map[string]evil{
		"garbage":       func(x *evilPeer) { x.say(nil, []byte("wrong")) },
		"nothing":       func(x *evilPeer) { x.say(nil, nil) },
		"a megabyte":    func(x *evilPeer) { x.say(nil, bytes.Repeat([]byte{1, 'x', 0}, 1<<20/3)) },
		"a megabyte, 2": func(x *evilPeer) { x.say(nil, make([]byte, 1<<20)) },
		"many":          func(x *evilPeer) { x.say(nil, entries(wire.MaxEntries+1, id(1), 1)) },
		"headers":       func(x *evilPeer) { x.say(nats.Header{"X": {"1"}}, []byte("wrong")) },
	}
)

// Whatever a peer says to frames, no call takes for its own what is not, and nobody waits for more than that.
func TestBatchHostile_parts(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	nc := foreign(t, s)
	for fails, tricks := range map[bool]map[string]evil{false: harmless, true: harmful} {
		for name, trick := range tricks {
			t.Run(name, func(t *testing.T) {
				caller := bustest.Connect(t, s, quiet(), bus.Eager())
				subject := "svc.evil" + strings.NewReplacer(" ", "", "'", "", ",", "").Replace(name)
				respond(t, nc, subject, func(m *nats.Msg) { _ = m.Respond(m.Data) })
				respond(t, nc, subject+".~f", func(m *nats.Msg) {
					x := &evilPeer{nc: nc, m: m, frame: m.Reply[lastDot(m.Reply)+1 : len(m.Reply)-len("~a1")]}
					x.entries, _ = wire.ReadEntries(nil, m.Data)
					for _, e := range x.entries {
						x.ids = append(x.ids, wire.Name(e, string(m.Data))[:15])
					}
					trick(x)
					if !fails {
						x.right()
					}
				})
				call := echoer(caller, subject)
				for range 5 {
					each(32, func(i int) bool {
						body := fmt.Sprint("right", i)
						got, err := call(patient(t), []byte(body))
						if fails {
							failed(t, err, endpoint.Internal, endpoint.ReasonProtocol, endpoint.MaybeExecuted)
							return true
						}
						assert.True(t, err == nil && string(got) == body, fmt.Sprint(string(got), err))
						return true
					})
				}
				o := own(caller)
				assert.True(t, name == "a stream" || o.Late+o.Malformed > 0, "it is counted")
				assert.Eventually(t, func() bool { return caller.Slots()+caller.FrameSlots()+caller.Watched() == 0 })
			})
		}
	}
}
