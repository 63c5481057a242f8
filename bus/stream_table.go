package bus

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// party is what frames to a control subject are for: a stream, or a message in chunks.
type party interface {
	entered(id uint64)        // before anybody finds it
	named()                   // by a probe
	deliver(m *nats.Msg) bool // false for what may be about other calls, too
	fail(err error)
	since() uint64 // the epoch that it began in
}

// streams are those that an instance serves, and its messages in chunks, by the names in their control subjects, which nobody
// can guess.
type streams struct {
	mu   sync.RWMutex
	open map[uint64]party
}

// enter names a stream.
func (s *streams) enter(x party) {
	var b [8]byte
	var id uint64
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[uint64]party{}
	}
	for id == 0 || s.open[id] != nil {
		_, _ = crand.Read(b[:]) // never fails, says its documentation
		id = binary.LittleEndian.Uint64(b[:])
	}
	x.entered(id)
	s.open[id] = x
}

func (s *streams) leave(id uint64) {
	if id == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

func (s *streams) find(call string) party {
	id, ok := wire.ParseCall(call)
	if !ok {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open[id]
}

// errSevered ends the streams of a connection that is lost: what was sent by way of it may be lost, too.
var errSevered = endpoint.Unavailable.New("the instance lost its connection").WithReason(endpoint.ReasonInstanceLost)

// sever ends the streams that began on a lost connection, or one before it.
func (s *streams) sever(epoch uint64) {
	s.mu.RLock()
	var lost []party
	for _, x := range s.open {
		if x.since() <= epoch {
			lost = append(lost, x)
		}
	}
	s.mu.RUnlock()
	for _, x := range lost {
		x.fail(errSevered)
	}
}

// dam ends our streams at a service whose control subjects the broker denies us, or the one at a subject that an import made.
func (m *replyMux) dam(denied wire.Control) {
	for _, s := range *m.table.Load() {
		s.mu.Lock()
		if h := s.ack; h != nil && s.secret != 0 && !s.left && s.sink != nil && h.Service == denied.Service &&
			(h.Service != "" || h.Subject == denied.Subject) {
			s.give(maybeDenied)
		}
		s.mu.Unlock()
	}
}

// streamed takes a frame about a stream of ours; false if it is none: the call is no stream, or the frame is for many calls. One
// that asks, about a call that is not here, is told so.
func (b *Bus) streamed(call string, m *nats.Msg) bool {
	if x := b.streams.find(call); x != nil {
		return x.deliver(m)
	}
	var none endpoint.Header
	switch f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &none, &none); f.Kind { //nolint:exhaustive // of no stream
	case wire.PingFrame, wire.CancelFrame:
		return false
	case wire.ItemFrame, wire.BeatFrame, wire.WindowFrame, wire.HalfFrame:
		switch {
		case m.Reply == "":
		case b.hostileReply(m.Reply):
			b.malformed.Add(1)
		default:
			b.post(m.Reply, wire.WriteControl(wire.VerbUnknown))
		}
	}
	return true
}

func (b *Bus) post(to string, h wire.Headers) {
	_ = b.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(h)}) // who asked asks again
}

// entered implements party.
func (x *serverStream) entered(id uint64) {
	x.id, x.self = id, x.op.control+string(wire.AppendCall(nil, id))
}

// since implements party.
func (x *serverStream) since() uint64 { return x.epoch }

// deliver implements party.
func (x *serverStream) deliver(m *nats.Msg) bool {
	if garbled(m) {
		x.fail(x.fault(errUnreadable))
		return true
	}
	var app, trailer endpoint.Header
	f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &app, &trailer)
	if f.Kind == wire.PingFrame || f.Kind == wire.CancelFrame {
		return false
	}
	x.mu.Lock()
	err := x.frame(&f, m)
	ours := err != nil && x.breaks(err)
	x.mu.Unlock()
	if ours {
		if errors.Is(err, x.blame) {
			x.bus.malformed.Add(1)
		}
		x.hurt(err)
	}
	return true
}

// frame goes on with a frame (lock held), or returns why the stream can't.
func (x *serverStream) frame(f *wire.Frame, m *nats.Msg) error {
	if x.dead() {
		return nil
	}
	x.rejoins(m)
	now := time.Now()
	if f.Err != nil && nobodyThere(f.Err) {
		return x.nobody(now)
	}
	x.heard(now)
	var err error
	switch f.Kind {
	case wire.BadFrame, wire.OpenFrame, wire.EndFrame, wire.ReplyFrame:
		err = errUnreadable
	case wire.HalfFrame:
		if err = x.in.End(f.Count); err == nil {
			x.eof = true
			signal(x.news)
		}
	case wire.BeatFrame:
		if m.Reply != "" && m.Reply != x.to {
			if x.bus.hostileReply(m.Reply) {
				err = errNoControl
				break
			}
			x.to = m.Reply
		}
		err = x.take(f, m)
	default:
		err = x.take(f, m)
	}
	return x.faultOf(err)
}
