package bus

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// What a service must not send, besides what package stream knows.
var (
	errUnreadable  = errors.New("a frame that can't be read")
	errOpenedTwice = errors.New("a second open")
	errNotOpen     = errors.New("an item before the open")
	errNoControl   = errors.New("a control subject where no instance can be")
)

// deliver takes a message to the reply subject of a stream. It is called by the mux with the slot's lock held.
func (x *clientStream) deliver(m *nats.Msg) {
	if err := x.bus.unread(m, x.subj); err != nil {
		x.fail(err)
		return
	}
	x.mu.Lock()
	err := x.frame(m)
	ours := err != nil && x.breaks(err)
	x.mu.Unlock()
	if ours {
		if errors.Is(err, endpoint.Internal) {
			x.bus.malformed.Add(1)
		}
		x.hurt(err)
	}
}

// frame goes on with a message (lock held), or returns why the stream can't.
func (x *clientStream) frame(m *nats.Msg) error {
	if x.dead() {
		return nil
	}
	x.slot.sends.to = "" // somebody has it: no complaint of the broker is about it any more
	x.rejoins(m)
	var app, trailer endpoint.Header
	f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &app, &trailer)
	if x.holder != nil && f.Err != nil && nobodyThere(f.Err) { // to a beat: a probe finds out whether that is so
		return nil
	}
	if f.Kind == wire.OpenFrame || f.Kind == wire.EndFrame || f.Kind == wire.ItemFrame && f.Seq == 1 {
		x.metadata(app, trailer)
	}
	x.watch.Heard(time.Now())
	switch f.Kind { //nolint:exhaustive // items, credit and beats are for an open one
	case wire.IgnoredFrame, wire.HalfFrame, wire.CancelFrame, wire.PingFrame: // they say nothing to a caller
		return nil
	case wire.BadFrame:
		return x.fault(errUnreadable)
	case wire.OpenFrame:
		return x.admit(&f, m)
	case wire.UnknownFrame:
		if !x.quiet {
			return lost(replyLost)
		}
		return nil
	case wire.ReplyFrame:
		if len(m.Header) == 0 && wire.IsPubAck(m.Data) {
			return nil
		}
		x.eof, x.quiet = true, true // there is nothing to be canceled
		return endpoint.Unimplemented.New("the service answered a stream with a single reply").
			WithReason(endpoint.ReasonProtocol).WithOutcome(endpoint.Executed)
	case wire.EndFrame:
		return x.end(&f)
	}
	if x.holder == nil {
		return x.fault(errNotOpen)
	}
	if f.Kind == wire.BeatFrame && m.Reply != "" {
		if err := x.moved(m.Reply); err != nil {
			return err
		}
	}
	return x.faultOf(x.take(&f, m))
}

// Item implements uplink.Taker. Where others may have subscribed to what is ours, each item comes for them, too, and which is which
// only nats.go knows.
func (in intake) Item(subject []byte, seq uint64, body []byte, now time.Time) uplink.Line {
	if in.bus.lent.Load() {
		return nil
	}
	if l := in.bus.lineAt(subject); l != nil && l.Next(seq, body, now) {
		return l
	}
	return nil
}

// Detour implements uplink.Taker.
func (in intake) Detour(subject []byte) {
	if l := in.bus.lineAt(subject); l != nil {
		l.mu.Lock()
		l.detours++
		l.mu.Unlock()
	}
}

// lineAt is the end of a stream that listens to a subject.
func (b *Bus) lineAt(subject []byte) *line {
	if token, ok := bytes.CutPrefix(subject, b.inbox); ok {
		return b.mux.lineAt(token)
	}
	call := subject[bytes.LastIndexByte(subject, '.')+1:]
	if x, ok := b.streams.find(string(call[:min(len(call), fewBytes)])).(*serverStream); ok && string(subject) == x.self {
		return &x.line
	}
	return nil
}

// fewBytes make a string that needs no memory of its own.
const fewBytes = 32

// lineAt is the end of a stream of ours.
func (m *replyMux) lineAt(token []byte) *line {
	index, secret, ok := wire.ParseID(string(token[:min(len(token), fewBytes)]))
	table := *m.table.Load()
	if !ok || index >= len(table) || secret == 0 {
		return nil
	}
	s := table[index]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret != secret || s.left || s.stream == nil {
		return nil
	}
	return &s.stream.line
}

// Next implements uplink.Line: it takes an item if it is the next one of an open stream, and nothing before it goes the usual way. The body
// is copied.
func (l *line) Next(seq uint64, body []byte, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead() || l.to == "" || l.detours > 0 || l.in.Item(seq, len(body)) != nil {
		return false
	}
	l.heard(now)
	l.keep(item{body: bytes.Clone(body)})
	return true
}

// Told implements uplink.Line.
func (l *line) Told() { signal(l.news) }

// rejoins is for a frame that went the usual way (lock held).
func (l *line) rejoins(m *nats.Msg) {
	numbered := len(m.Header) == 1 && m.Header[wire.Seq] != nil
	if l.detours > 0 && m.Reply == "" && (numbered || m.Header[wire.End] != nil) {
		l.detours--
	}
}

// metadata keeps the application's headers (lock held).
func (x *clientStream) metadata(app, trailer endpoint.Header) {
	x.fresh.Store(true)
	if app.Len() > 0 {
		x.header = app
	}
	if trailer.Len() > 0 {
		x.trailer = trailer
	}
}

// admit opens the stream (lock held).
func (x *clientStream) admit(f *wire.Frame, m *nats.Msg) error {
	if x.holder != nil {
		return x.fault(errOpenedTwice)
	}
	h := x.bus.opens(f.Instance, m.Reply)
	if h == nil {
		return x.fault(errNoControl)
	}
	x.slot.ack, x.holder, x.instance, x.to = h, h, f.Instance, h.Subject
	if strings.HasPrefix(h.Subject, wire.ImportRoot+".") {
		x.watch.Probation(time.Now())
	}
	close(x.opened)
	go x.bus.mux.acked.watch(x.slot, x.secret, h) // its lock is taken before a slot's
	signal(x.clear)
	signal(x.news)
	return nil
}

// moved takes a newer control subject (lock held).
func (x *clientStream) moved(subject string) error {
	if subject == x.to {
		return nil
	}
	h := x.bus.opens(x.instance, subject)
	if h == nil {
		return x.fault(errNoControl)
	}
	old, watch := x.holder, x.bus.mux.acked
	x.slot.ack, x.holder, x.to = h, h, h.Subject
	go func() {
		watch.forget(old)
		watch.watch(x.slot, x.secret, h)
	}()
	return nil
}

// end takes what the service says last (lock held). An error counts whatever the number of items.
func (x *clientStream) end(f *wire.Frame) error {
	if f.Err == nil {
		if x.holder == nil {
			return x.fault(errNotOpen)
		}
		if err := x.in.End(f.Count); err != nil {
			return x.fault(err)
		}
	} else if !x.in.Open() {
		return nil
	}
	x.final, x.eof, x.quiet = nil, true, true
	if f.Err != nil {
		x.final = f.Err
		x.in.Close()
	}
	signal(x.news)
	return nil
}

// opens returns who has a stream, nil if who says so can't be believed.
func (b *Bus) opens(instance, subject string) *holder {
	c, ok := wire.ParseControl(b.rpcRoot, subject)
	if !ok || c.Instance != "" && c.Instance != instance {
		return nil
	}
	return &holder{Control: c, instance: instance}
}

// opened reads the open of a stream whose caller left before; nil if the message is none.
func (p *peers) opened(m *nats.Msg) *holder {
	var app, trailer endpoint.Header
	f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &app, &trailer)
	if f.Kind != wire.OpenFrame {
		return nil
	}
	return p.bus.opens(f.Instance, m.Reply)
}
