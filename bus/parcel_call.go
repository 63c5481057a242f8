package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// clientParcel is the caller's end.
type clientParcel struct {
	parcel
	p    *proxy
	c    *endpoint.Call
	r    sending
	self string // where it listens

	// guarded by the parcel's lock
	strays   int        // instances that had it, too, and were told to let it be
	holder   *holder    // who has the call, as what it opened or announced last said
	opened   bool       // the request may come
	whole    bool       // the last chunk of it is about to go, or has gone: it may be executed
	comes    *nats.Msg  // announces the reply
	as       wire.Frame // what it says
	answered bool       // by answer
	answer   *nats.Msg
	pubAck   *nats.Msg // a stream's acknowledgement
}

func (p *proxy) parcel(c *endpoint.Call, r *sending) *clientParcel {
	x := &clientParcel{p: p, c: c, r: *r} // a copy: every call would be on the heap otherwise
	x.prepare(p.bus, endpoint.Internal)
	return x
}

// large calls with a request that goes in chunks.
func (p *proxy) large(ctx context.Context, c *endpoint.Call, r *sending) (reply any, err error) {
	b := p.bus
	if len(r.body) > b.maxMessage {
		return nil, endpoint.ResourceExhausted.Errorf("the request has %d bytes, at most %d are sent", len(r.body), b.mostMessage()).
			WithReason(endpoint.ReasonRequestTooLarge).WithOutcome(endpoint.NotSent)
	}
	x := p.parcel(c, r)
	x.out = stream.NewSender(wire.ChunkGrant())
	s, secret := b.mux.open(request{r.to, r.now, r.epoch}, x.deliver)
	if s == nil {
		return nil, b.ended()
	}
	s.mu.Lock()
	s.whole = true
	s.mu.Unlock()
	x.r.slot, x.r.secret, x.r.framed = s, secret, false
	bounded, cancel := context.WithDeadline(ctx, r.deadline)
	defer cancel()
	defer func() { x.close(ctx, err) }()
	if err = x.announce(bounded); err != nil {
		return nil, err
	}
	return x.run(ctx, bounded)
}

// announce sends what comes before the chunks.
func (x *clientParcel) announce(ctx context.Context) error {
	b, r := x.bus, &x.r
	r.chunked, r.packed = true, b.compresses
	r.draft = b.mux.drafts.Get().(*draft)
	defer b.mux.discard(r)
	h, err := x.p.compose(x.c, r)
	if err != nil {
		return err
	}
	x.self = string(r.token())
	if b.up.Lost(r.epoch) { // what is sent from now on nobody would call lost
		return b.sendError(nats.ErrDisconnected, 0)
	}
	return x.publish(ctx, r.to, x.self, h, nil)
}

// run goes on until the call has ended.
func (x *clientParcel) run(ctx, bounded context.Context) (any, error) {
	var overlap <-chan time.Time
	for sent := x.whole; ; {
		x.mu.Lock()
		answered, broke, comes, opened, pubAck := x.answered, x.broke, x.comes != nil, x.opened, x.pubAck
		x.mu.Unlock()
		var err error
		switch {
		case answered:
			return x.finish()
		case broke != nil:
			return nil, x.certain(broke)
		case bounded.Err() != nil:
			return nil, x.certain(x.r.over(ctx, x.bus))
		case comes:
			var reply any
			if reply, err = x.fetch(bounded); err == nil {
				return reply, nil
			}
		case opened && !sent:
			sent = true
			err = x.send(bounded, x.r.body, x.r.packed, x.commit)
		default:
			if pubAck != nil && overlap == nil {
				overlap = time.After(overlapGrace)
			}
			select {
			case <-x.news:
			case <-bounded.Done():
			case <-overlap:
				return nil, x.p.overlap(pubAck)
			}
		}
		x.mu.Lock()
		known := x.answered || x.broke != nil || bounded.Err() != nil // they know better
		x.mu.Unlock()
		if err != nil && !known {
			return nil, x.certain(err)
		}
	}
}

// commit says that the last chunk is about to go.
func (x *clientParcel) commit() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.whole = true
}

// finish is what a message says that ended the call.
func (x *clientParcel) finish() (any, error) {
	x.mu.Lock()
	m, whole, to := x.answer, x.whole, x.r.to
	if x.holder != nil { // that got through: what may be denied came after it
		to = x.to
	}
	x.mu.Unlock()
	if err := x.bus.unread(m, to); err != nil {
		return nil, x.certain(err)
	}
	reply, err := x.p.reply(x.c, m, false)
	if err == nil && !whole {
		return nil, endpoint.Unimplemented.New("the service took the announcement of a request for the request").
			WithReason(endpoint.ReasonProtocol).WithOutcome(endpoint.Executed)
	}
	return reply, err
}

// certain says of an error what is known of the call: nobody executes a request of which some is missing, and who announces a
// reply has executed it.
func (x *clientParcel) certain(err error) error {
	e, ok := errors.AsType[*endpoint.Error](err)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !ok || e.Remote():
		return err
	case x.comes != nil:
		return e.WithOutcome(endpoint.Executed)
	case !x.whole, e.Outcome() == endpoint.NotSent:
		return e.WithOutcome(endpoint.NotExecuted)
	}
	return e
}

// download goes on with a call whose reply was announced.
func (p *proxy) download(ctx context.Context, c *endpoint.Call, r *sending, announcement *nats.Msg) (reply any, err error) {
	x := p.parcel(c, r)
	x.whole = true
	x.self = p.bus.mux.prefix + string(wire.AppendID(nil, r.slot.index, r.secret))
	s := r.slot
	s.mu.Lock()
	s.sink, s.whole = x.deliver, true
	x.deliver(announcement)
	for len(s.ch) > 0 {
		x.deliver(<-s.ch)
	}
	s.mu.Unlock()
	p.bus.mux.relayed(s) // one of these may have had the lead
	bounded, cancel := context.WithDeadline(ctx, r.deadline)
	defer cancel()
	defer func() { x.dismiss(err) }()
	return x.run(ctx, bounded)
}

// fetch has the announced reply come.
func (x *clientParcel) fetch(ctx context.Context) (any, error) {
	x.mu.Lock()
	as, m, to := x.as, x.comes, x.to
	x.mu.Unlock()
	switch {
	case x.bus.maxMessage == 0:
		return nil, x.fault(errOdd)
	case as.Size > uint64(x.bus.maxMessage):
		return nil, endpoint.ResourceExhausted.Errorf("the reply has %d bytes, at most %d are taken", as.Size, x.bus.mostMessage()).
			WithReason(endpoint.ReasonReplyTooLarge)
	case as.Encoding != "" && as.Encoding != wire.S2:
		return nil, endpoint.Internal.Errorf("the reply has content encoding %.80q, which this caller can't decode", as.Encoding).
			WithReason(endpoint.ReasonMediaType)
	}
	size := int64(as.Size)
	told := time.Now()
	err := x.bus.replies.take(size, ctx.Done(), func() error {
		x.mu.Lock()
		broke := x.broke
		x.mu.Unlock()
		if time.Since(told) >= parcelPause {
			told = time.Now()
			x.grant(to, x.self, wire.Grant{}) // we are still here
		}
		return errors.Join(ctx.Err(), broke)
	})
	if err != nil {
		return nil, err
	}
	defer x.bus.replies.give(size)
	x.expect(as.Size, as.Encoding)
	x.grant(to, x.self, wire.ChunkGrant())
	body, err := x.collect(ctx, x.self)
	if err != nil {
		return nil, err
	}
	h := wire.Headers(m.Header)
	wire.Arrived(h)
	return x.p.reply(x.c, &nats.Msg{Header: nats.Header(h), Data: body}, false)
}

// dismiss tells the service that nobody wants the rest.
func (x *clientParcel) dismiss(err error) {
	x.mu.Lock()
	h, told := x.holder, x.answered && !verdict(x.answer)
	x.mu.Unlock()
	if h != nil && x.c.Instance() == "" {
		x.c.SetInstance(h.instance)
	}
	if err != nil && h != nil && !told && !errors.Is(err, endpoint.DeadlineExceeded) {
		x.bus.mux.acked.cancel(h)
	}
}

// close gives the slot back. Where nobody has opened the request, who does so later is told that its caller has left.
func (x *clientParcel) close(ctx context.Context, err error) {
	x.dismiss(err)
	x.mu.Lock()
	open := x.holder == nil && !x.answered
	x.mu.Unlock()
	if err != nil && (open || ctx.Err() != nil) && time.Until(x.r.deadline) > 0 {
		x.bus.mux.leave(x.r.slot, x.r.deadline)
		return
	}
	x.bus.mux.close(x.r.slot)
}
