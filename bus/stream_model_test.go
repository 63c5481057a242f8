package bus_test

import (
	"flag"
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// callerModel is what a caller's end of a server stream has to make of the messages that it gets, whoever sends them.
type callerModel struct {
	open, ended        bool
	got, used, granted uint64
	announced          uint64
	fault              endpoint.Code // OK: none
	final              endpoint.Code // of an end
}

// step draws a message that a service may send, good or bad, and says what the model makes of it.
func (x *callerModel) step(t *rapid.T) *nats.Msg {
	m := &nats.Msg{}
	say := func(h wire.Headers) *nats.Msg {
		m.Header = nats.Header(maps.Clone(h))
		return m
	}
	near := func(usual uint64) uint64 {
		return usual + uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "more")) -
			min(usual, uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "less")))
	}
	switch rapid.SampledFrom(rapidSteps).Draw(t, "frame") {
	case "open":
		m.Reply = rapid.SampledFrom([]string{"_RPC.svc.i1.c.abc", "_RPC.svc.i1.c.abc", "_R_.x", "$JS.x", "", "_RPC.svc.i2.c.abc"}).Draw(t, "control")
		x.opens(m.Reply == "_RPC.svc.i1.c.abc" || m.Reply == "_R_.x")
		return say(wire.WriteOpen("i1"))
	case "item":
		n := max(near(x.got+1), 1)
		x.item(n)
		m.Data = []byte(strconv.FormatUint(n, 10))
		return say(itemFrame(n))
	case "end":
		n := near(x.got)
		x.end(n)
		return say(endFrame(n))
	case "failure":
		x.fails(endpoint.NotFound)
		h := wire.Headers{}
		_ = wire.WriteEnd(h, rapid.Uint64Range(0, 100).Draw(t, "count"), endpoint.NotFound.New("no"), &endpoint.Header{})
		return say(h)
	case "nobody":
		if !x.open {
			x.fails(endpoint.Unavailable)
		}
		return say(wire.Headers{"Status": {"503"}, "Nats-Subject": {"svc.fed"}})
	case "beat":
		n := near(x.got)
		x.beat(n)
		return say(wire.WriteBeat(n, wire.Grant{}))
	case "window":
		g := wire.Grant{Messages: rapid.SampledFrom([]uint64{0, 1, wire.MaxAhead, wire.MaxAhead + 1}).Draw(t, "credit")}
		x.needsOpen(func() {
			if g.Messages > wire.MaxAhead {
				x.breaks(endpoint.Internal)
			}
		})
		return say(wire.WriteWindow(g))
	case "unknown":
		if !x.ended {
			x.breaks(endpoint.Unavailable)
		}
		return say(wire.WriteControl(wire.VerbUnknown))
	case "reply":
		x.ended = true
		x.breaks(endpoint.Unimplemented)
		m.Data = []byte("{}")
		return m
	case "bad":
		x.breaks(endpoint.Internal)
		return say(rapid.SampledFrom([]wire.Headers{
			{"Rpc-Seq": {"0"}}, {"Rpc-Seq": {"-1"}}, {"Rpc-End": {"x"}}, {"Rpc-Ctl": {"beat"}}, {"Rpc-Ctl": {"window"}, "Rpc-Window": {"1"}},
		}).Draw(t, "what"))
	default: // what says nothing
		return say(rapid.SampledFrom([]wire.Headers{
			nil, {"Rpc-Ctl": {"dance"}}, {"Rpc-Ctl": {"cancel"}}, {"Rpc-Ctl": {"end"}, "Rpc-End": {"1"}}, {"Rpc-Ctl": {"ping"}},
		}).Draw(t, "what"))
	}
}

var rapidSteps = []string{
	"open", "item", "item", "item", "item", "item", "item", "item", "item", "end", "failure", "nobody", "beat", "window", "unknown", "reply", "bad", "nothing",
}

func (x *callerModel) breaks(c endpoint.Code) {
	if x.fault == endpoint.OK {
		x.fault = c
	}
}

func (x *callerModel) needsOpen(f func()) {
	if !x.open {
		x.breaks(endpoint.Internal)
		return
	}
	if x.fault == endpoint.OK {
		f()
	}
}

func (x *callerModel) opens(good bool) {
	if x.open || !good {
		x.breaks(endpoint.Internal)
	} else if x.fault == endpoint.OK {
		x.open = true
	}
}

func (x *callerModel) item(n uint64) {
	x.needsOpen(func() {
		switch {
		case x.ended, n <= x.got:
			x.breaks(endpoint.Internal)
		case n > x.got+1:
			x.breaks(endpoint.DataLoss)
		case x.got == x.granted:
			x.breaks(endpoint.Internal)
		default:
			x.got++
		}
	})
}

func (x *callerModel) end(n uint64) {
	x.needsOpen(func() {
		switch {
		case x.ended, n < x.got:
			x.breaks(endpoint.Internal)
		case n > x.got:
			x.breaks(endpoint.DataLoss)
		default:
			x.ended = true
		}
	})
}

func (x *callerModel) fails(c endpoint.Code) {
	if x.fault == endpoint.OK && !x.ended {
		x.ended, x.final = true, c
	}
}

func (x *callerModel) beat(n uint64) {
	x.needsOpen(func() {
		here := x.got
		if x.ended {
			here++ // the end
		}
		if x.announced > here {
			x.breaks(endpoint.DataLoss)
		}
		x.announced = n
	})
}

// use is a consumer that takes an item; half of the window is granted anew when it was used.
func (x *callerModel) use() {
	x.used++
	if !x.ended && x.granted-x.used <= 32 {
		x.granted = max(x.granted, x.used+64)
	}
}

// TestCallerModel sends the caller of a stream any messages in any order, and holds what its consumer gets against a model: items
// in order and without a gap, then the end, or the first fault. The streams are fed without a broker between.
func TestCallerModel(t *testing.T) {
	_, caller, _ := free(t)
	checks := fmt.Sprint(scaled(3000, 100_000))
	before := flag.Lookup("rapid.checks").Value.String()
	assert.NoError(t, flag.Set("rapid.checks", checks))
	defer func() { assert.NoError(t, flag.Set("rapid.checks", before)) }()
	rapid.Check(t, func(t *rapid.T) {
		f := caller.Feed("svc.fed")
		defer f.End()
		x := &callerModel{granted: 64}
		burst := 0
		if rapid.IntRange(0, 4).Draw(t, "open") > 0 {
			x.opens(true)
			f.Take(&nats.Msg{Reply: "_RPC.svc.i1.c.abc", Header: nats.Header(wire.WriteOpen("i1"))})
			burst = rapid.IntRange(0, 100).Draw(t, "burst")
		}
		for range burst { // towards the end of the credit
			x.item(x.got + 1)
			f.Take(&nats.Msg{Header: nats.Header(itemFrame(x.got)), Data: []byte(strconv.FormatUint(x.got, 10))})
			if x.fault != endpoint.OK {
				break
			}
			if rapid.Bool().Draw(t, "use") {
				take(t, f, x)
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "use") == 0 {
				take(t, f, x)
			}
			f.Take(x.step(t))
		}
		for take(t, f, x) {
		}
	})
	assert.Eventually(t, func() bool { return caller.Slots() == 0 })
}

// take is the consumer's next step; false when nothing is there, or the stream is over, as the model says.
func take(t *rapid.T, f *bus.Fed, x *callerModel) bool {
	body, code, end, ok := f.Next()
	switch {
	case x.used < x.got:
		if want := strconv.FormatUint(x.used+1, 10); !ok || string(body) != want {
			t.Fatalf("want item %s, got %q, %v", want, body, code)
		}
		x.use()
		return true
	case x.fault != endpoint.OK:
		if !ok || end || code != x.fault {
			t.Fatalf("want %v, got %v, %v, %v", x.fault, code, end, ok)
		}
	case x.ended:
		if !ok || !end || code != x.final {
			t.Fatalf("want the end, %v, got %v, %v, %v", x.final, code, end, ok)
		}
	case ok:
		t.Fatalf("want nothing, got %q, %v, %v", body, code, end)
	}
	return false
}
