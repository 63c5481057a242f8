package bus

import (
	"bytes"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// Requests and replies without headers are taken by who reads them. By way of nats.go there would be one goroutine more to wake, a
// parser that looks at each byte, and three allocations for a reply:
//
//	network ──► sieve ──► slot, dispatcher                            a message without headers
//	              └─────► nats.go ──► callback ──► slot, dispatcher   everything else; what comes behind it for the same slot; and
//	                                                                  what finds no room, since who reads has no time to refuse it

// intake is who takes what is read for a bus.
type intake struct{ bus *Bus }

// Plain implements uplink.Taker.
func (in intake) Plain(subject, reply, body []byte) (runs uplink.Runner, ok bool) {
	b := in.bus
	if b.lent.Load() {
		return nil, false // whose it is only nats.go knows
	}
	if token, ok := bytes.CutPrefix(subject, b.inbox); ok {
		return nil, len(reply) == 0 && b.mux.take(token, body)
	}
	if len(reply) == 0 {
		return nil, false
	}
	taken := *b.taken.Load()
	if op := taken[string(subject)]; op != nil {
		return op.take(reply, body)
	}
	if single, ok := bytes.CutSuffix(subject, []byte(wire.BatchSubject(""))); ok {
		if op := taken[string(single)]; op != nil && op.takesFrames() {
			return op.takeFrame(reply, body)
		}
	}
	return nil, false
}

// take is receive for who reads, and has no time to refuse anything. The body is copied.
func (op *operation) take(reply, body []byte) (runs uplink.Runner, ok bool) {
	msg := &nats.Msg{Subject: op.subject, Reply: string(reply), Data: bytes.Clone(body)}
	if op.bus.hostileReply(msg.Reply) {
		return nil, false
	}
	return op.jobs.offer(job{arrival: arrival{msg: msg}, received: time.Now()})
}

// takeFrame is receiveFrame for the same.
func (op *operation) takeFrame(reply, body []byte) (runs uplink.Runner, ok bool) {
	msg := &nats.Msg{Reply: string(reply), Data: bytes.Clone(body)}
	if op.bus.curbed.Load() || op.bus.hostileReply(msg.Reply) {
		return nil, false
	}
	var room [wire.MaxEntries]job
	jobs, err := op.unpack(room[:0], msg)
	if err != nil {
		return nil, false
	}
	return op.jobs.offer(jobs...)
}

// Passes implements uplink.Taker.
func (in intake) Passes(subject []byte) {
	if token, ok := bytes.CutPrefix(subject, in.bus.inbox); ok {
		in.bus.mux.passes(token)
	}
}

// idOf is a token without what stands behind the id: a string that needs no memory of its own.
func idOf(token []byte) string { return string(token[:min(len(token), fewBytes)]) }

// take gives a reply to who waits for it. The body is copied.
func (m *replyMux) take(token, body []byte) bool {
	s, secret := m.find(idOf(token))
	if s == nil {
		return false
	}
	s.mu.Lock()
	ours, bt := s.secret == secret && s.detours == 0, s.batch
	switch {
	case !ours:
	case bt != nil:
		s.sends = request{} // the broker let it pass
	case s.bare():
		m.fill(s, bytes.Clone(body))
	default:
		ours = false
	}
	s.mu.Unlock()
	if ours && bt != nil {
		m.unpack(bt, &nats.Msg{Data: bytes.Clone(body)})
	}
	return ours
}

// passes notes that a message goes by way of nats.go, so that none overtakes it.
func (m *replyMux) passes(token []byte) {
	if s, secret := m.find(idOf(token)); s != nil {
		s.mu.Lock()
		if s.secret == secret && s.stream == nil {
			s.detours++
		}
		s.mu.Unlock()
	}
}

// rejoins notes that a message has come by way of nats.go.
func (m *replyMux) rejoins(token string) {
	if s, secret := m.find(token); s != nil {
		s.mu.Lock()
		if s.secret == secret && s.detours > 0 {
			s.detours--
		}
		s.mu.Unlock()
	}
}
