package stream_test

import (
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// frame is what travels in the model: to the receiver items, ends and beats; to the sender grants.
type frame struct {
	kind   wire.FrameKind
	n      uint64
	size   int
	grant  wire.Grant
	forged bool // nobody sent it
}

// half is a half of a stream and the network between, with what really happened beside it.
type half struct {
	t *rapid.T
	s stream.Sender
	r stream.Receiver

	there, back []frame // under way
	total       int     // items that the sender has
	queue       []int   // sizes of what came and is not used yet
	got, used   int
	ended       bool // the receiver saw the end

	fooled bool // the receiver believed what nobody sent

	hurt  bool // something of what goes to the receiver was lost, doubled, put in another order or made up
	fault error
}

// TestModel lets two ends do anything in any order over a network that does anything, too. What the receiver takes is always the
// beginning of what was sent; over a network that only loses grants all of it, and its end; over one that does worse all of it, or
// there is a fault; and where the network is at fault for nothing, neither end is found at fault.
func TestModel(t *testing.T) {
	checks := "3000"
	if os.Getenv("POSTBUS_FULL") == "1" {
		checks = "100000"
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		w := wire.Grant{Messages: rapid.Uint64Range(1, 6).Draw(t, "messages"), Bytes: rapid.Uint64Range(1, 50).Draw(t, "bytes")}
		h := &half{t: t, s: stream.NewSender(w), r: stream.NewReceiver(w), total: rapid.IntRange(0, 20).Draw(t, "items")}
		hostile := rapid.Bool().Draw(t, "hostile")
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			h.step(hostile)
		}
		h.finish()
		h.check()
	})
}

func (h *half) step(hostile bool) {
	most := 9
	if hostile {
		most = 13
	}
	switch rapid.IntRange(0, most).Draw(h.t, "step") {
	case 0, 1:
		h.send(rapid.IntRange(0, 60).Draw(h.t, "size"))
	case 2:
		h.there = append(h.there, frame{kind: wire.BeatFrame, n: h.s.Position()})
	case 3, 4:
		h.arrive()
	case 5, 6:
		h.use()
	case 7:
		h.back = append(h.back, frame{grant: h.r.Granted()})
	case 8:
		h.grant()
	case 9:
		if len(h.back) > 0 { // a grant is lost
			h.back = h.back[1:]
		}
	case 10: // anything is lost
		if i := h.any(); i >= 0 {
			h.hurt = h.hurt || h.there[i].kind != wire.BeatFrame
			h.there = slices.Delete(h.there, i, i+1)
		}
	case 11: // or comes twice
		if i := h.any(); i >= 0 {
			h.hurt = true
			h.there = append(h.there, h.there[i])
		}
	case 12: // or too late
		if i := h.any(); i >= 0 {
			h.hurt = true
			f := h.there[i]
			h.there = append(slices.Delete(h.there, i, i+1), f)
		}
	case 13: // or was never sent
		h.hurt = true
		kind := rapid.SampledFrom([]wire.FrameKind{wire.ItemFrame, wire.EndFrame, wire.BeatFrame}).Draw(h.t, "kind")
		h.there = append(h.there, frame{kind: kind, n: rapid.Uint64Range(0, 25).Draw(h.t, "n"), forged: true})
	}
}

func (h *half) any() int {
	if len(h.there) == 0 {
		return -1
	}
	return rapid.IntRange(0, len(h.there)-1).Draw(h.t, "which")
}

// send sends an item if there is one and credit for it, or the end.
func (h *half) send(size int) {
	sent := int(h.s.Count())
	switch {
	case sent < h.total && h.s.Ready():
		h.there = append(h.there, frame{kind: wire.ItemFrame, n: h.s.Next(), size: size})
		h.s.Sent(size)
	case sent == h.total && h.s.Position() == h.s.Count():
		h.s.End()
		h.there = append(h.there, frame{kind: wire.EndFrame, n: h.s.Count()})
	}
}

func (h *half) arrive() {
	if len(h.there) == 0 || h.fault != nil {
		return
	}
	f := h.there[0]
	h.there = h.there[1:]
	switch f.kind { //nolint:exhaustive // no others are sent
	case wire.ItemFrame:
		if h.fault = h.r.Item(f.n, f.size); h.fault == nil {
			h.got++
			if f.n != uint64(h.got) {
				h.t.Fatalf("item %d came as number %d", f.n, h.got)
			}
			h.queue = append(h.queue, f.size)
			h.fooled = h.fooled || f.forged
		}
	case wire.EndFrame:
		h.fault = h.r.End(f.n)
		h.ended = h.ended || h.fault == nil
	case wire.BeatFrame:
		h.fault = h.r.Beat(f.n)
	}
}

func (h *half) use() {
	if len(h.queue) == 0 {
		return
	}
	due := h.r.Use(h.queue[0])
	h.queue = h.queue[1:]
	h.used++
	if !due {
		return
	}
	switch rapid.IntRange(0, 3).Draw(h.t, "window") {
	case 0:
		h.r.Widen()
	case 1:
		h.r.Narrow()
	}
	h.back = append(h.back, frame{grant: h.r.TopUp(time.Time{})})
}

func (h *half) grant() {
	if len(h.back) == 0 {
		return
	}
	if err := h.s.Grant(h.back[0].grant); err != nil {
		h.t.Fatalf("the receiver grants too much: %v", err)
	}
	h.back = h.back[1:]
}

// finish lets all go on until nothing moves any more: the network is good from now on, and both ends beat.
func (h *half) finish() {
	for range 2*h.total + 4 {
		for len(h.there) > 0 && h.fault == nil {
			h.arrive()
		}
		for len(h.queue) > 0 {
			h.use()
		}
		for len(h.back) > 0 {
			h.grant()
		}
		h.send(1)
		h.there = append(h.there, frame{kind: wire.BeatFrame, n: h.s.Position()})
		h.back = append(h.back, frame{grant: h.r.Granted()})
	}
}

func (h *half) check() {
	whole := h.ended && h.got == h.total && h.used == h.total
	switch {
	case !h.hurt && (h.fault != nil || !whole):
		h.t.Fatalf("%d of %d items came, ended %v: %v", h.got, h.total, h.ended, h.fault)
	case h.fault == nil && !h.ended && !h.fooled: // who can forge can hold it up
		h.t.Fatalf("it stands still at %d of %d items without a fault", h.got, h.total)
	case h.got > h.total && !h.fooled:
		h.t.Fatalf("%d of %d items came", h.got, h.total)
	}
}
