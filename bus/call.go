package bus

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// ackWorth is the time that a caller must have left for an ack to be of use to it.
const ackWorth = 5 * ackAfter

// Handler calls the subject over the bus. It is bare: endpoint.Caller puts middleware, codec and types around it. A bad
// subject makes a handler that says so, before anything is sent.
//
// Where a JetStream stream covers the subject, its acknowledgement of the request is not the reply, unless the response type
// says so by having fields named stream and seq: to publish into a stream on purpose, use such a type, or JetStream itself.
func (b *Bus) Handler(subject string, s *endpoint.Spec) endpoint.Handler {
	if err := endpoint.ValidateSubject(subject); err != nil {
		return failing(endpoint.InvalidArgument.Wrap(err, err.Error()))
	}
	p := &proxy{bus: b, subject: subject, mayBeAck: ackFields(s.Response), streams: s.Kind != endpoint.UnaryKind}
	if s.Kind == endpoint.GatherKind {
		p.streams = false
		return p.gather
	}
	if p.keeps = s.Response == reflect.TypeFor[*[]byte]() || s.Response == reflect.TypeFor[[]byte](); !p.keeps && !p.streams {
		p.keeps = isPayload(s.NewResponse())
	}
	if !p.streams && !p.mayBeAck && !b.frameless && b.owned {
		p.batch = &batcher{bus: b, subject: subject, to: wire.BatchSubject(subject)}
	}
	return p.handler()
}

func failing(e *endpoint.Error) endpoint.Handler {
	e = e.WithOutcome(endpoint.NotSent)
	return func(context.Context, *endpoint.Call) (any, error) { return nil, e }
}

// proxy is the caller's end of one subject.
type proxy struct {
	bus      *Bus
	subject  string
	mayBeAck bool     // the response type has the fields of a stream's acknowledgement
	streams  bool     // it is no unary endpoint
	keeps    bool     // whoever has a reply has its bytes
	batch    *batcher // nil where calls go alone
}

// handler is where a call comes out of the chain of its caller.
//
//go:noinline
func (p *proxy) handler() endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		if _, _, err := c.Encoded(); err != nil { // here, where a codec has the room on the stack that attempt takes
			return nil, err
		}
		if id := endpoint.InstanceFrom(ctx); id != "" {
			return p.direct(ctx, c, id)
		}
		reply, err := p.attempt(ctx, c, p.subject, p.batch)
		switch {
		case err == error(errAlone): //nolint:errorlint // this very value
			return p.alone(ctx, c)
		case err == nil && !p.streams:
			c.Release()
		}
		return reply, err
	}
}

// errAlone says that the call is to be tried again without a frame.
var errAlone = endpoint.Unavailable.New("its frame came to nothing").WithOutcome(endpoint.NotExecuted)

// alone tries a call again without a frame.
func (p *proxy) alone(ctx context.Context, c *endpoint.Call) (any, error) {
	c.Reply, c.Trailer = endpoint.Header{}, endpoint.Header{} // what the refusal said is not the reply's
	c.SetInstance("")
	reply, err := p.attempt(ctx, c, p.subject, nil)
	if err == nil {
		c.Release()
	}
	return reply, err
}

// attempt sends the request to a subject, the endpoint's own or that of one instance, and waits. It may go in a frame where
// there is a batcher. While it waits, and while the request is written, what it has on the stack is there, below all of a
// caller's middleware: so everything else is done by functions that are not inlined.
func (p *proxy) attempt(ctx context.Context, c *endpoint.Call, to string, batch *batcher) (reply any, err error) {
	if p.streams {
		return p.stream(ctx, c, to)
	}
	var r sending // not of a literal, which would stand on the stack beside it
	r.to = to
	if err = p.prepare(ctx, c, &r); err != nil {
		return nil, err
	}
	if p.bus.maxMessage > 0 && int64(len(r.body)) > p.bus.maxPayload.Load() {
		return p.large(ctx, c, &r)
	}
	r.framed, r.counted = batch.enter()
	defer p.bus.close(&r, batch)
	if !p.bus.open(&r, batch) {
		return nil, p.bus.ended()
	}
	if err = p.send(ctx, c, &r); err != nil {
		return p.unsent(ctx, c, &r, err)
	}
	reply, err = p.wait(ctx, c, &r)
	return reply, p.learn(c, &r, batch, err)
}

// prepare looks at what is sent, and until when, or says why it can't be.
//
//go:noinline
func (p *proxy) prepare(ctx context.Context, c *endpoint.Call, r *sending) (err error) {
	if r.body, r.mediaType, err = c.Encoded(); err != nil {
		return err
	}
	if p.bus.buffers && !p.bus.nc.IsConnected() { // its reconnect buffer would send the request later
		return p.bus.offline()
	}
	r.now = c.Now()
	if r.deadline, r.done = endpoint.Wait(ctx); r.deadline.IsZero() {
		r.deadline = r.now.Add(p.bus.timeout)
	}
	if gate := p.bus.gate.Load(); gate != nil {
		hold(*gate, r.deadline, r.done)
		r.now = time.Now()
	}
	if r.left() <= 0 {
		return endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
	r.epoch, r.before = p.bus.up.Epoch(), p.bus.lastErrorOf()
	return nil
}

// unsent goes on with a request that could not be sent as it is.
//
//go:noinline
func (p *proxy) unsent(ctx context.Context, c *endpoint.Call, r *sending, err error) (any, error) {
	if p.bus.maxMessage > 0 && errors.Is(err, nats.ErrMaxPayload) { // its headers are too much, or the broker takes less than it did
		r.slot.sendsTo("") // what is denied from now on is not this one
		return p.large(ctx, c, r)
	}
	return nil, err
}

// learn looks at how a call ended, which may tell more than the caller is told, and returns what it is told.
//
//go:noinline
func (p *proxy) learn(c *endpoint.Call, r *sending, batch *batcher, err error) error {
	h := r.slot.holder()
	if h != nil && c.Instance() == "" && !h.shared {
		c.SetInstance(h.instance)
	}
	if r.sampled {
		batch.sampled(c, err)
	}
	e, ok := err.(*endpoint.Error) //nolint:errorlint // ours, from wait
	if r.framed && ok && batch.unwelcome(e) {
		return errAlone
	}
	if own := ok && e.Outcome() == endpoint.MaybeExecuted && !e.Remote(); own && (e.Code == endpoint.Canceled || e.Code == endpoint.DeadlineExceeded) {
		r.gone = e.Code == endpoint.Canceled // said by its context
		if h == nil && !r.framed {           // where it is, the frame has not ended with it
			p.bus.denials.ghosts.add(r.to)
		}
	}
	return err
}

// went is the subject that the request was sent to.
func (r *sending) went(batch *batcher) string {
	if r.framed {
		return batch.to
	}
	return r.to
}

// open takes a slot for a request; false when the bus has come to its end.
//
//go:noinline
func (b *Bus) open(r *sending, batch *batcher) bool {
	sends := request{r.to, r.now, r.epoch}
	if r.framed {
		sends.to = "" // its frame is
	}
	if r.slot, r.secret = b.mux.open(sends, nil); r.slot == nil {
		return false
	}
	if r.framed && batch.samples(r.secret) {
		r.framed, r.sampled = false, true
		r.slot.sendsTo(r.to)
	}
	return true
}

// close gives the slot back.
func (b *Bus) close(r *sending, batch *batcher) {
	if r.counted {
		batch.leave()
	}
	switch {
	case r.slot == nil:
	case r.gone:
		b.mux.leave(r.slot, r.deadline)
	default:
		b.mux.close(r.slot)
	}
}

// reply reads a reply.
func (p *proxy) reply(c *endpoint.Call, msg *nats.Msg, framed bool) (any, error) {
	switch {
	case len(msg.Header) > 0:
		return p.described(c, msg)
	case !p.keeps:
		return c.SetReply(msg.Data, "", p.bus.codecs)
	}
	body := msg.Data // and not the message, which may be the slot's
	if framed {
		body = bytes.Clone(body) // not all of the frame
	}
	return c.SetReplyAt(&body, "", p.bus.codecs)
}

// described takes a reply with headers.
func (p *proxy) described(c *endpoint.Call, msg *nats.Msg) (any, error) {
	r := wire.ReadReply(wire.Headers(msg.Header), msg.Data, &c.Reply)
	if r.Instance != "" {
		c.SetInstance(r.Instance)
	}
	err := wire.ReadTrailer(wire.Headers(msg.Header), &c.Trailer)
	if r.Err != nil {
		return nil, r.Err
	}
	if err != nil {
		return nil, err
	}
	if wire.OfStream(wire.Headers(msg.Header)) {
		return nil, errStreams
	}
	return c.SetReplyAt(&msg.Data, r.MediaType, p.bus.codecs)
}

// errStreams is for a call that is answered by a stream: by way of an import its caller looks like one that knows none.
var errStreams = endpoint.Unimplemented.New("the service answered a call for a single reply with a stream").
	WithReason(endpoint.ReasonProtocol).WithOutcome(endpoint.Executed)

// ackFields reports whether a response type has fields named stream and seq, so that a reply of that form is meant.
func ackFields(t reflect.Type) bool {
	if t == nil {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	found := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		found[strings.ToLower(name)] = true
	}
	return found["stream"] && found["seq"]
}
