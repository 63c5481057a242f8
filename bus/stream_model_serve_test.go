package bus_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// serviceModel is what a service's end of a client stream has to make of the messages that it gets, as long as its handler has
// not read any of them.
type serviceModel struct {
	got       uint64
	ended     bool
	announced uint64
	fault     endpoint.Code // OK: none
}

func (x *serviceModel) breaks(c endpoint.Code) {
	if x.fault == endpoint.OK {
		x.fault = c
	}
}

// counts takes a number that should be the next one, or the last one.
func (x *serviceModel) counts(n, should uint64) bool {
	switch {
	case x.fault != endpoint.OK:
		return false
	case x.ended, n < should:
		x.breaks(endpoint.InvalidArgument)
	case n > should:
		x.breaks(endpoint.DataLoss)
	}
	return x.fault == endpoint.OK
}

func (x *serviceModel) item(n uint64) {
	if !x.counts(n, x.got+1) {
		return
	}
	if x.got == 64 {
		x.breaks(endpoint.InvalidArgument)
		return
	}
	x.got++
}

func (x *serviceModel) beat(n uint64) {
	here := x.got
	if x.ended {
		here++
	}
	if x.announced > here {
		x.breaks(endpoint.DataLoss)
	}
	x.announced = n
}

// step draws a message that a caller may send, good or bad, and says what the model makes of it.
func (x *serviceModel) step(t *rapid.T) (h wire.Headers, body string) {
	near := func(usual uint64) uint64 {
		return usual + uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "more")) -
			min(usual, uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}).Draw(t, "less")))
	}
	switch rapid.SampledFrom([]string{
		"item", "item", "item", "item", "item", "item", "item", "item", "half", "beat", "beat", "window", "cancel", "bad", "nothing", "nothing",
	}).Draw(t, "frame") {
	case "item":
		n := max(near(x.got+1), 1)
		x.item(n)
		return itemFrame(n), fmt.Sprintf(`{"A":%d}`, n)
	case "half":
		n := near(x.got)
		x.ended = x.counts(n, x.got) || x.ended
		return wire.WriteHalf(n), ""
	case "beat":
		n := near(x.got)
		if x.fault == endpoint.OK {
			x.beat(n)
		}
		return wire.WriteBeat(n, wire.Grant{}), ""
	case "window":
		g := wire.Grant{Messages: rapid.SampledFrom([]uint64{0, 1, wire.MaxAhead, wire.MaxAhead + 1}).Draw(t, "credit")}
		if g.Messages > wire.MaxAhead {
			x.breaks(endpoint.InvalidArgument)
		}
		return wire.WriteWindow(g), ""
	case "cancel":
		x.breaks(endpoint.Canceled)
		return wire.WriteControl(wire.VerbCancel), ""
	case "bad":
		x.breaks(endpoint.InvalidArgument)
		return rapid.SampledFrom([]wire.Headers{
			{"Rpc-Seq": {"0"}},
			{"Rpc-Seq": {"-1"}},
			{"Rpc-End": {"0"}},
			{"Rpc-Ctl": {"end"}},
			{"Rpc-Ctl": {"beat"}},
			{"Rpc-Open": {"i1"}},
			{"Content-Type": {"text/x"}},
			{"Nats-Service-Error-Code": {"500"}},
		}).Draw(t, "what"), ""
	default:
		return rapid.SampledFrom([]wire.Headers{
			nil, {"Rpc-Ctl": {"dance"}}, {"Rpc-Ctl": {"ping"}}, {"Rpc-Ctl": {"unknown"}},
		}).Draw(t, "what"), ""
	}
}

// taken is what a handler got of its input.
type taken struct {
	items []int
	code  endpoint.Code
}

// TestServiceModel sends a service any messages about a stream in any order, and holds what its handler, and its caller, get
// against a model: all items in order and then the end, or the first fault alone. All but the open and the end come without a
// broker between.
func TestServiceModel(t *testing.T) {
	service, _, s := free(t)
	gate, results := make(chan bool, 1), make(chan taken, 1)
	serve(t, service, "svc.fed", endpoint.NewClientStream(func(_ context.Context, in inSeq) (*AddResponse, error) {
		<-gate
		var h taken
		for r, err := range in {
			if err != nil {
				h.code = endpoint.CodeOf(err)
			} else {
				h.items = append(h.items, r.A)
			}
		}
		results <- h
		return &AddResponse{}, nil
	}))
	nc := foreign(t, s)
	prefix, next := inbox(t, nc)
	before := flag.Lookup("rapid.checks").Value.String()
	assert.NoError(t, flag.Set("rapid.checks", fmt.Sprint(scaled(1000, 100_000))))
	defer func() { assert.NoError(t, flag.Set("rapid.checks", before)) }()
	rapid.Check(t, func(t *rapid.T) {
		if err := nc.PublishMsg(&nats.Msg{Subject: "svc.fed", Reply: prefix + "x", Header: nats.Header{"Rpc-Stream": {"client"}}}); err != nil {
			t.Fatal(err)
		}
		open := next()
		call, x := open.Reply[strings.LastIndexByte(open.Reply, '.')+1:], &serviceModel{}
		say := func(h wire.Headers, body string) {
			service.Control(call, &nats.Msg{Subject: open.Reply, Header: nats.Header(maps.Clone(h)), Data: []byte(body)})
		}
		for range rapid.IntRange(0, 70).Draw(t, "burst") { // to the end of the credit
			x.item(x.got + 1)
			say(itemFrame(x.got), fmt.Sprintf(`{"A":%d}`, x.got))
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			say(x.step(t))
		}
		if x.fault == endpoint.OK && !x.ended {
			x.breaks(endpoint.Canceled)
			say(wire.WriteControl(wire.VerbCancel), "")
		}
		gate <- true
		end := next()
		for end.Header.Get(wire.End) == "" {
			end = next()
		}
		h := <-results
		want := taken{upTo(int(x.got), 1), endpoint.OK}
		if x.fault != endpoint.OK {
			want = taken{nil, x.fault}
		}
		if h.code != want.code || fmt.Sprint(h.items) != fmt.Sprint(want.items) {
			t.Fatalf("the handler has %v, want %v", h, want)
		}
		if code := end.Header.Get(wire.Code); code != map[bool]string{false: x.fault.String()}[x.fault == endpoint.OK] {
			t.Fatalf("the caller is told %q, want %v", code, x.fault)
		}
	})
	assert.Eventually(t, func() bool { return service.Streams() == 0 })
}
