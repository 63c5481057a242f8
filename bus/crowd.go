package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// Where instances can't be called each by itself, since nobody knows them or they take no direct calls, one request goes to all
// who listen on the subject, and all answer to one slot. How many will is not known, so silence is the end. Ours say who they are,
// by acks and in their answers; they are waited for once they have acked, and canceled like any other call.

const (
	crowdStall   = 250 * time.Millisecond // the silence that ends it, after an answer
	crowdReplies = 1024                   // that wait for the consumer
	crowdBytes   = 8 << 20                // of these
)

// crowd is who listens.
type crowd struct {
	slot *slot
	news chan struct{} // has an element when something came

	mu    sync.Mutex // taken after the slot's
	inbox []*nats.Msg
	acks  int  // of these
	size  int  // of the others
	full  bool // something had no room

	until    time.Time
	holders  map[string]*holder // who acked and did not answer yet, by id
	nameless int                // answers of those who don't say who they are
	nobody   *endpoint.Error    // the broker's word
}

// heard is the slot's sink.
func (k *crowd) heard(m *nats.Msg) {
	k.mu.Lock()
	defer k.mu.Unlock()
	acks, size := weigh(m)
	if acks+k.acks > crowdReplies {
		return
	}
	if acks == 0 {
		k.full = k.full || len(k.inbox)-k.acks >= crowdReplies || k.size+size > crowdBytes
	}
	if k.full && !verdict(m) {
		return
	}
	k.acks, k.size = k.acks+acks, k.size+size
	k.inbox = append(k.inbox, m)
	signal(k.news)
}

// weigh says whether a message is an ack, of which there are as many as replies, and how much it is if not.
func weigh(m *nats.Msg) (acks, size int) {
	if verdict(m) {
		return 0, 0
	}
	h := wire.Headers(m.Header)
	if _, ok := wire.ReadAck(h, m.Data); ok {
		return 1, 0
	}
	return 0, len(m.Data) + wire.Size(h)
}

// next takes what came first; full says that something after it is gone.
func (k *crowd) next() (m *nats.Msg, ok, full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.inbox) == 0 {
		return nil, false, k.full
	}
	m = k.inbox[0]
	k.inbox[0] = nil
	k.inbox = k.inbox[1:]
	acks, size := weigh(m)
	k.acks, k.size = k.acks-acks, k.size-size
	return m, true, false
}

// shout sends the request to all.
func (x *gathering) shout() error {
	b, k := x.p.bus, &x.crowd
	k.news, k.holders = make(chan struct{}, 1), map[string]*holder{}
	k.until, _ = x.ctx.Deadline()
	if gate := b.gate.Load(); gate != nil {
		hold(*gate, k.until, x.ctx.Done())
	}
	now := time.Now()
	r := sending{
		to: x.p.subject, epoch: b.up.Epoch(), body: x.body, mediaType: x.mediaType, now: now, deadline: k.until,
		done: x.ctx.Done(), sampled: true, single: true,
	}
	if r.left() <= 0 {
		return endpoint.ContextError(x.ctx).WithOutcome(endpoint.NotSent)
	}
	if r.slot, r.secret = b.mux.open(request{r.to, now, r.epoch}, k.heard); r.slot == nil {
		return b.ended()
	}
	if err := x.p.send(x.ctx, x.c, &r); err != nil {
		b.mux.close(r.slot)
		return err
	}
	k.slot = r.slot
	return nil
}

// listen hands over what came.
func (x *gathering) listen() error {
	if x.crowd.slot == nil {
		return nil
	}
	for {
		m, ok, full := x.crowd.next()
		switch {
		case full:
			return endpoint.ResourceExhausted.Errorf("more than %d replies, or %d bytes of them, came before the first was taken", crowdReplies, crowdBytes)
		case !ok:
			return nil
		}
		if err := x.hear(m); err != nil {
			return err
		}
	}
}

// hear takes one message.
func (x *gathering) hear(m *nats.Msg) error {
	b, k := x.p.bus, &x.crowd
	switch {
	case m == denied || m == maybeDenied:
		if x.said > 0 || len(k.holders) > 0 { // it is about another call
			return nil
		}
		return b.unread(m, x.p.subject)
	case verdict(m):
		return b.unread(m, x.p.subject)
	case garbled(m):
		b.malformed.Add(1)
		return nil
	case !x.p.mayBeAck && len(m.Header) == 0 && wire.IsPubAck(m.Data): // a stream's, which is no instance
		return nil
	}
	if id, ok := wire.ReadAck(wire.Headers(m.Header), m.Data); ok {
		x.acked(id, m.Reply)
		return nil
	}
	c := x.c.Member()
	reply, err := x.p.reply(c, m, false)
	if nobodyThere(err) {
		k.nobody = endpoint.Unavailable.Errorf("nobody serves %s", x.p.subject).WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
		return nil
	}
	id := c.Instance()
	delete(k.holders, id)
	switch {
	case id == "":
		k.nameless++
	case x.upForAll(err):
		x.lost[id] = nil
		return nil
	}
	return x.deliver(id, reply, err)
}

// acked notes who has the request.
func (x *gathering) acked(id, control string) {
	h := x.p.bus.opens(id, control)
	switch {
	case h == nil:
		x.p.bus.malformed.Add(1)
	case !x.answered[h.instance] && x.crowd.holders[h.instance] == nil && len(x.crowd.holders) < maxNames:
		x.crowd.holders[h.instance] = h
	}
}

// roll finds out who of the crowd did not answer: of those who don't say who they are only where none did.
func (x *gathering) roll() error {
	k := &x.crowd
	if x.way != together {
		return nil
	}
	if err := x.listen(); err != nil {
		return err
	}
	for id := range k.holders {
		x.lost[id] = nil
	}
	for _, m := range x.held {
		switch {
		case x.answered[m.id] || !m.direct && k.nameless > 0:
		case k.nobody == nil:
			x.lost[m.id] = nil
		case !m.doubtful:
			x.lost[m.id] = errAbsent
		}
	}
	return nil
}

// disperse cancels the calls of those who did not answer, now or when they say that they have one. Those whose time is up know.
func (x *gathering) disperse(late bool) {
	k, b := &x.crowd, x.p.bus
	switch {
	case k.slot == nil:
	case late || k.nobody != nil || x.said > 0 && len(k.holders) == 0 && time.Since(x.last) >= crowdStall:
		b.mux.close(k.slot)
	default:
		for _, h := range k.holders {
			b.mux.acked.cancel(h)
		}
		k.slot.mu.Lock()
		k.slot.many = true
		k.slot.mu.Unlock()
		b.mux.leave(k.slot, k.until)
		k.mu.Lock()
		unread := k.inbox
		k.inbox = nil
		k.mu.Unlock()
		for _, m := range unread {
			if !verdict(m) && !garbled(m) {
				b.mux.acked.callOff(m)
			}
		}
	}
}

// callOff cancels the call of who acks it when its caller has left; false if the message is no ack.
func (p *peers) callOff(m *nats.Msg) bool {
	id, ok := wire.ReadAck(wire.Headers(m.Header), m.Data)
	if !ok {
		return false
	}
	if h := p.bus.opens(id, m.Reply); h != nil {
		p.cancel(h)
	} else {
		p.bus.malformed.Add(1)
	}
	return true
}
