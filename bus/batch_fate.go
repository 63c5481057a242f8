package bus

import (
	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// What becomes of a frame that was sent: its calls end, one by one; or all of them learn something about it.

// join takes a call in, which is about to be sent (the batcher's lock held).
func (bt *batch) join(s *slot, secret uint64) {
	bt.members = append(bt.members, member{s, secret})
	bt.left.Add(1)
	s.mu.Lock()
	s.in = bt
	s.mu.Unlock()
}

// leave is for a call that has ended.
func (bt *batch) leave(m *replyMux) {
	if bt.left.Add(-1) > 0 {
		return
	}
	bt.slot.mu.Lock()
	unheard := bt.slot.sends.to != ""
	bt.slot.mu.Unlock()
	if unheard {
		bt.by.bus.denials.ghosts.add(bt.by.to)
	}
	m.close(bt.slot)
}

// found is what the bus itself found out about a frame (its slot's lock held). Of a connection that is lost, and of the end,
// each call hears by itself.
func (bt *batch) found(msg *nats.Msg) {
	switch msg {
	case denied:
		bt.tell(alone)
		go bt.bury() // not under the slot's lock
	case maybeDenied:
		bt.tell(maybeDenied)
	default:
		return
	}
	bt.slot.sends = request{}
}

// alone has the calls sent again that nobody can have executed.
func (bt *batch) alone() {
	bt.tell(alone)
	bt.bury()
}

// bury closes the slots of calls whose callers left.
func (bt *batch) bury() {
	for _, c := range bt.members {
		bt.by.bus.mux.exhume(c.slot, c.secret)
	}
}

func (bt *batch) tell(verdict *nats.Msg) {
	for _, c := range bt.members {
		c.slot.tell(c.secret, verdict)
	}
}

// unpack takes what came for a frame: answers to some of its calls, something about one of them, or about the frame itself.
func (m *replyMux) unpack(bt *batch, msg *nats.Msg) {
	switch {
	case garbled(msg): // about one of them, and nobody knows which
		bt.by.bus.malformed.Add(1)
	case len(msg.Header) > 0:
		if id, ok := wire.ReadEntryHeader(wire.Headers(msg.Header)); ok {
			m.hand(bt, id, msg)
			return
		}
		bt.refused(msg)
	case wire.IsPubAck(msg.Data): // a stream covers the subject
		bt.tell(msg)
	default:
		var room [wire.MaxEntries]wire.Entry
		entries, err := wire.ReadEntries(room[:0], msg.Data)
		if err != nil {
			bt.misread()
			return
		}
		for _, e := range entries {
			m.answer(bt, string(wire.Name(e, msg.Data)), e.Body(msg.Data))
		}
	}
}

// refused takes what was said about all of a frame: nobody is there, or nobody who takes it.
func (bt *batch) refused(msg *nats.Msg) {
	var app endpoint.Header
	r := wire.ReadReply(wire.Headers(msg.Header), msg.Data, &app)
	if r.Err == nil {
		bt.misread()
		return
	}
	bt.by.terms.refused(refusedShort)
	if r.Err.Outcome() == endpoint.NotExecuted {
		bt.alone()
		return
	}
	bt.tell(msg)
}

// misread is for an answer of somebody who does not know what a frame is, and may have done anything: no call takes it for its
// own.
func (bt *batch) misread() {
	bt.by.bus.malformed.Add(1)
	bt.by.terms.refused(refusedShort)
	bt.tell(misunderstood)
}
