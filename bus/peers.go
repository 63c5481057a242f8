package bus

import (
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/wire"
)

// peers are the instances that have calls of ours, as their acks said: what is to be canceled there, and whether they and
// their calls are still there.
//
// Its lock is taken before a slot's and the mux's, never after one of them.
type peers struct {
	bus *Bus

	mu      sync.Mutex
	ended   bool
	cancels map[string][]string // calls to cancel, by the prefix of their control subjects
	queued  int
	flushed time.Time
	flusher *time.Timer
	waits   bool // the flusher does

	known  map[string]*peer // by prefix
	prober *time.Timer
	wakes  time.Time       // when the prober does, zero: never
	mute   map[string]bool // services whose roots we may not publish to
}

func newPeers(b *Bus) *peers {
	return &peers{bus: b, cancels: map[string][]string{}, known: map[string]*peer{}, mute: map[string]bool{}}
}

// take reads an ack into its slot (the slot's lock held); false if the message is none. One that hands out a subject where no
// instance can be is nobody's ack: it is counted, and the subject is never published to. The first one counts: others come
// where several instances take the call, and then none of them alone is who has it.
func (p *peers) take(s *slot, m *nats.Msg) bool {
	instance, ok := wire.ReadAck(wire.Headers(m.Header), m.Data)
	if !ok {
		return false
	}
	c, ok := wire.ParseControl(p.bus.rpcRoot, m.Reply)
	if !ok || instance == "" || c.Instance != "" && c.Instance != instance {
		p.bus.malformed.Add(1)
		return true
	}
	if c.Instance != "" {
		instance = c.Instance // the same: the headers need not be kept for it
	}
	if s.ack == nil {
		s.ack = &holder{Control: c, instance: instance}
	} else if s.ack.Subject != c.Subject && (!s.ack.opened || s.ack.instance != instance) {
		s.ack = &holder{Control: s.ack.Control, instance: s.ack.instance, shared: true}
	}
	return true
}

// silenced returns the services whose instances are not asked for calls.
func (p *peers) silenced() map[string]bool {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.mute)
}

// The pace of cancels: at once, and then what has come together in cancelEvery.
const (
	cancelEvery = 10 * time.Millisecond
	maxCancels  = 1 << 16
)

// cancel asks an instance to end a call. It does not wait for the connection.
func (p *peers) cancel(h *holder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.queued >= maxCancels || p.mute[h.Service] {
		return
	}
	p.queued++
	p.cancels[h.Prefix()] = append(p.cancels[h.Prefix()], h.Call)
	if !p.waits {
		p.waits = true
		p.flusher = reset(p.flusher, max(cancelEvery-time.Since(p.flushed), 0), p.flush)
	}
}

// flush sends the cancels that have come together.
func (p *peers) flush() {
	p.mu.Lock()
	all := p.cancels
	p.cancels, p.queued, p.waits, p.flushed = map[string][]string{}, 0, false, time.Now()
	p.mu.Unlock()
	if len(all) == 0 || !p.bus.connected() {
		return // they end by their deadlines; to publish would be to wait where a connection is being made
	}
	for prefix, calls := range all {
		for len(calls) > 0 {
			n := min(len(calls), p.frame())
			if p.publish(prefix, calls[:n], wire.VerbCancel, "") != nil {
				return // they end by their deadlines
			}
			calls = calls[n:]
		}
	}
}

// publish sends a frame about calls of one instance: the first is addressed, the others stand in the body.
func (p *peers) publish(prefix string, calls []string, verb, reply string) error {
	var body []byte
	for _, call := range calls[1:] {
		body = wire.AppendCalls(body, call)
	}
	return p.bus.nc.PublishMsg(&nats.Msg{Subject: prefix + calls[0], Reply: reply, Header: nats.Header(wire.WriteControl(verb)), Data: body})
}

// frame is how many calls fit in a frame that the broker takes.
func (p *peers) frame() int {
	const headers, name = 128, 65
	return int(min(max((p.bus.maxPayload.Load()-headers)/name, 1), wire.MaxCalls))
}

// end sends what is left to cancel and stops the timers.
func (p *peers) end() {
	p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, t := range []*time.Timer{p.flusher, p.prober} {
		if t != nil {
			t.Stop()
		}
	}
}
