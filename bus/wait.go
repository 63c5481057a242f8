package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// overlapGrace is how long a call waits for the real reply after a stream's acknowledgement came.
const overlapGrace = 250 * time.Millisecond

// watch is what a call waits for besides its reply.
type watch struct {
	until  time.Time // when to look at the clock
	pubAck *nats.Msg // a stream's acknowledgement, that came in place of the reply
}

// wait takes the reply. It returns by the deadline, whatever the connection does.
func (p *proxy) wait(ctx context.Context, c *endpoint.Call, r *sending) (any, error) {
	var w watch
	p.begin(r, &w)
	for {
		select {
		case msg := <-r.slot.ch:
			if msg == rang {
				if err := p.rung(ctx, r, &w); err != nil {
					return nil, err
				}
				continue
			}
			if reply, err, more := p.came(ctx, c, r, &w, msg); !more {
				return reply, err
			}
		case <-r.done:
			return nil, r.over(ctx, p.bus)
		}
	}
}

// begin sets the timer.
//
//go:noinline
func (p *proxy) begin(r *sending, w *watch) {
	if !r.sent {
		r.now = time.Now()
	}
	w.until = r.now.Add(min(r.left(), p.bus.lookPause()))
	p.bus.mux.wakeAt(r.slot, w.until, r.now)
}

// came takes a message; more says that it was none to end the wait.
//
//go:noinline
func (p *proxy) came(ctx context.Context, c *endpoint.Call, r *sending, w *watch, msg *nats.Msg) (reply any, err error, more bool) { //nolint:revive // the order of a reply
	p.bus.mux.relayed(r.slot)
	if err = p.bus.unread(msg, r.went(p.batch)); err != nil {
		return nil, err, false
	}
	if !p.mayBeAck && len(msg.Header) == 0 && wire.IsPubAck(msg.Data) {
		p.batch.overheard()
		p.acknowledged(r, w, msg)
		return nil, nil, true
	}
	if wire.Announces(wire.Headers(msg.Header)) {
		reply, err = p.download(ctx, c, r, msg)
	} else {
		reply, err = p.reply(c, msg, r.framed)
	}
	return reply, err, false
}

// rung is for a timer that went off, of this call or of an earlier one.
func (p *proxy) rung(ctx context.Context, r *sending, w *watch) error {
	now := time.Now()
	if !now.Before(w.until) {
		if w.pubAck != nil {
			return p.overlap(w.pubAck)
		}
		more, err := r.look(ctx, p.bus)
		if err != nil {
			return err
		}
		w.until = now.Add(more)
	}
	p.bus.mux.wakeAt(r.slot, w.until, now)
	return nil
}

// acknowledged sets a stream's acknowledgement aside, and waits a little for the reply.
func (p *proxy) acknowledged(r *sending, w *watch, ack *nats.Msg) {
	if w.pubAck == nil {
		now := time.Now()
		w.until = now.Add(min(overlapGrace, r.deadline.Sub(now)))
		p.bus.mux.wakeAt(r.slot, w.until, now)
	}
	w.pubAck = ack
}

// overlap ends a call that got a stream's acknowledgement and no reply.
func (p *proxy) overlap(ack *nats.Msg) *endpoint.Error {
	return endpoint.FailedPrecondition.Errorf("a JetStream stream covers %s and answered in place of a service: %s", p.subject, ack.Data).
		WithReason(endpoint.ReasonJetStreamOverlap).WithOutcome(endpoint.MaybeExecuted)
}

// unread returns what to say of a reply that is none, or can't be read; nil for one that can.
func (b *Bus) unread(msg *nats.Msg, to string) error {
	switch {
	case msg == nil:
		return b.ended().WithOutcome(endpoint.MaybeExecuted)
	case msg == alone:
		return errAlone
	case msg == misunderstood:
		return errMisunderstood
	case msg == denied:
		return publishDenied(to, nil).WithOutcome(endpoint.NotExecuted)
	case msg == maybeDenied:
		return publishDenied(to, nil).WithOutcome(endpoint.MaybeExecuted)
	case verdict(msg):
		return lost(msg)
	case garbled(msg):
		b.malformed.Add(1)
		return errGarbledReply
	}
	return nil
}

// lost is what was found out about a call that waits.
func lost(verdict *nats.Msg) *endpoint.Error {
	msg := "the instance that had the call is gone"
	switch verdict {
	case replyLost:
		msg = "the instance that had the call does not have it any more, and no reply came"
	case connectionLost:
		msg = "the connection to the broker was lost before the reply came"
	}
	return endpoint.Unavailable.New(msg).WithReason(verdict.Subject).WithOutcome(endpoint.MaybeExecuted)
}

// wakeAt sets the timer of a slot, unless it goes off before: its call then sets it again. It is not stopped between calls,
// nor set for each. It has no channel, which every call would have to wait for beside that of the reply.
func (m *replyMux) wakeAt(s *slot, at, now time.Time) {
	age := max(int64(at.Sub(m.made)), 1)
	if fires := s.fires.Load(); fires != 0 && fires <= age {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fires.Store(age)
	s.timer = reset(s.timer, at.Sub(now), s.ring)
}

// ring tells the call that waits, whosever it was, that the timer went off. There is always room for that, see give.
func (s *slot) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fires.Store(0)
	if s.secret == 0 || s.sink != nil || s.left {
		return
	}
	select {
	case s.ch <- rang:
	default: // with another one in it
	}
}
