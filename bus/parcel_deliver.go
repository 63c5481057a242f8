package bus

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// deliver takes a message to the reply subject. It is called with the slot's lock held.
func (x *clientParcel) deliver(m *nats.Msg) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case m == rang:
		return
	case verdict(m), garbled(m):
		x.ends(m)
		return
	}
	x.r.slot.sends.to = "" // somebody has it: no complaint of the broker is about it any more
	before := x.heard
	x.heard = time.Now()
	if len(m.Header) == 0 {
		if !x.p.mayBeAck && wire.IsPubAck(m.Data) {
			x.pubAck = m
			signal(x.news)
			return
		}
		x.ends(m)
		return
	}
	var none endpoint.Header
	f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &none, &none)
	switch f.Kind {
	case wire.ItemFrame:
		x.chunk(f.Seq, m)
	case wire.WindowFrame:
		x.granted(f.Grant)
	case wire.OpenFrame:
		x.opens(&f, m)
	case wire.IgnoredFrame:
	case wire.EndFrame, wire.ReplyFrame:
		if x.holder != nil && f.Kind == wire.EndFrame && nobodyThere(f.Err) { // the broker's, about what we granted: probes know more of the instance
			x.heard = before
			return
		}
		if x.strays > 0 && f.Err != nil && endpoint.OutcomeOf(f.Err) == endpoint.NotExecuted { // of one that was told to let it be
			x.strays--
			return
		}
		x.ends(m)
	default:
		x.breaks(x.fault(errOdd))
	}
}

// errAnswered interrupts what waits for chunks or credit.
var errAnswered = errors.New("the call was answered")

// ends takes the message that ends the call (lock held).
func (x *clientParcel) ends(m *nats.Msg) {
	if x.answered {
		x.bus.mux.late.Add(1)
		return
	}
	x.answered, x.answer = true, m
	x.breaks(errAnswered)
}

// opens takes that the request may come, or that the reply does (lock held, and the slot's). Where several instances take the call,
// the first has it.
func (x *clientParcel) opens(f *wire.Frame, m *nats.Msg) {
	h := x.bus.opens(f.Instance, m.Reply)
	switch {
	case h == nil:
		x.breaks(x.fault(errNoControl))
		return
	case x.holder != nil && x.holder.instance != h.instance:
		x.strays++
		go x.bus.mux.acked.cancel(h) // not under the slot's lock
		return
	case x.comes != nil && f.Size == x.as.Size && f.Encoding == x.as.Encoding && h.Subject == x.to:
		return // once more, because what we said of the first may have been lost
	case f.Size > 0 && x.whole && x.comes == nil:
		x.comes, x.as = m, *f
	case f.Size == 0 && !x.whole && !x.opened:
		x.opened = true
	default:
		x.breaks(x.fault(errOpenedTwice))
		return
	}
	h.opened = true
	x.holder, x.to = h, h.Subject
	if s := x.r.slot; s.ack == nil {
		s.ack = h
		go x.bus.mux.acked.watch(s, x.r.secret, h)
	}
	signal(x.news)
}
