package bus

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// straight is from how many bytes on a request is not worth copying once more.
const straight = 8 << 10

// sending is what is sent of one attempt, and until when. It stands on the stack of its call while that waits, so it has nothing
// that is only of use before.
type sending struct {
	to        string
	epoch     uint64
	slot      *slot
	secret    uint64
	body      []byte
	mediaType string
	now       time.Time // when it was sent, or is about to be
	deadline  time.Time
	done      <-chan struct{}
	draft     *draft // while it is sent
	before    error  // of an adopted connection, when the request was about to be sent
	sent      bool   // now says when
	framed    bool   // it may go in a frame
	counted   bool   // see batcher.enter
	chunked   bool   // it goes in chunks
	packed    bool   // which are compressed
	single    bool   // its replies come in one message each
	sampled   bool   // it asks who answers, see terms
	gone      bool   // its caller left
}

// left is how long the caller waits from now on.
func (r *sending) left() time.Duration { return r.deadline.Sub(r.now) }

// draft is where a request is composed: pooled, and not the call's own, which would keep it for as long as it waits.
type draft struct {
	line      []byte         // of the protocol
	from, end int            // of the reply subject in it
	meta      wire.Request   // zero while nobody composes
	held      *uplink.Outlet // what waits there until this was put
}

// send publishes the request.
func (p *proxy) send(ctx context.Context, c *endpoint.Call, r *sending) error {
	r.draft = p.bus.mux.drafts.Get().(*draft)
	err := p.transmit(ctx, c, r)
	p.bus.mux.discard(r)
	return err
}

// discard gives the draft back, and lets go what waits for that.
//
//go:noinline
func (m *replyMux) discard(r *sending) {
	d := r.draft
	r.draft = nil
	if d.held != nil {
		d.held.Let()
		d.held = nil
	}
	m.drafts.Put(d)
}

// transmit composes the request and gives it to the connection.
func (p *proxy) transmit(ctx context.Context, c *endpoint.Call, r *sending) error {
	h, err := p.compose(c, r)
	if err != nil {
		return err
	}
	place, err := p.place(ctx, r, h)
	switch {
	case err != nil:
		return err
	case r.framed && h == nil && len(r.body) <= wire.MaxEntryBody && p.batch.add(place, r.weight(nil), r):
		r.sent = true // about now
		return nil
	case r.framed:
		r.framed = false
		r.slot.sendsTo(r.to)
	}
	if h != nil || len(r.body) >= straight || r.to != p.subject || !p.bus.puts(place, len(r.body)) {
		return p.publish(place, r, h)
	}
	if r.now, err = place.Put(r.draft.line, r.body, r.now); err != nil {
		return p.bus.unput(place, r, err)
	}
	r.sent = true
	return nil
}

// weight is how many bytes the request takes, with its line.
func (r *sending) weight(h wire.Headers) int {
	return len(r.body) + wire.Size(h) + len(r.draft.line) + len("\r\n")
}

// place takes the request's place with the connection.
//
//go:noinline
func (p *proxy) place(ctx context.Context, r *sending, h wire.Headers) (*uplink.Outlet, error) {
	weight := r.weight(h)
	place, waited, err := p.bus.up.Admit(weight, r.deadline, r.done)
	if err != nil {
		return nil, p.bus.noPlace(ctx, err)
	}
	if p.bus.up.Lost(r.epoch) { // what is sent from now on nobody would call lost
		place.Release(weight)
		return nil, p.bus.sendError(nats.ErrDisconnected, 0)
	}
	if waited {
		r.now = time.Now() // how long it took to step back is counted from here
	}
	return place, nil
}

// publish sends the request by way of nats.go.
//
//go:noinline
func (p *proxy) publish(place *uplink.Outlet, r *sending, h wire.Headers) (err error) {
	defer place.Release(r.weight(h))
	token := string(r.token())
	if h == nil {
		err = p.bus.nc.PublishRequest(r.to, token, r.body)
	} else {
		err = p.bus.nc.PublishMsg(&nats.Msg{Subject: r.to, Reply: token, Header: nats.Header(h), Data: r.body})
	}
	if err != nil {
		return p.bus.sendError(err, len(r.body)+wire.Size(h))
	}
	return nil
}

// unput is for a request that the outlet did not take.
//
//go:noinline
func (b *Bus) unput(place *uplink.Outlet, r *sending, err error) error {
	place.Release(r.weight(nil))
	return b.sendError(err, len(r.body))
}

// puts reports whether a message of so many bytes goes into the outlet past nats.go.
func (b *Bus) puts(o *uplink.Outlet, size int) bool {
	if o == nil || !o.Ready() || int64(size) > b.maxPayload.Load() {
		return false
	}
	return !b.denials.shared.Load() || b.passedOn() // behind what its user published
}

// passedOn reports whether nats.go has nothing left to write.
func (b *Bus) passedOn() bool {
	n, err := b.nc.Buffered()
	return n == 0 && err == nil
}

// token is the reply subject in the draft.
func (r *sending) token() []byte {
	return r.draft.line[r.draft.from:r.draft.end]
}

// compose makes the reply subject, and the line of the protocol around it, and the headers of the request. Metadata rides in
// the reply subject; only what has no place there makes headers.
func (p *proxy) compose(c *endpoint.Call, r *sending) (h wire.Headers, err error) {
	d := r.draft
	p.describe(c, r, &d.meta)
	b := append(append(append(d.line[:0], "PUB "...), r.to...), ' ')
	d.from = len(b)
	b = append(b, p.bus.mux.prefix...)
	b = wire.AppendID(b, r.slot.index, r.secret)
	if p.bus.headerMetadata {
		h = wire.Headers{}
		wire.WriteRequest(h, &d.meta)
	} else {
		h = rest(&d.meta, c.Header.Get(wire.TraceParent) != "")
		b = wire.AppendToken(b, &d.meta)
	}
	d.meta = wire.Request{}
	d.end = len(b)
	d.line = append(strconv.AppendInt(append(b, ' '), int64(len(r.body)), 10), "\r\n"...)
	if h == nil && c.Header.Len() == 0 {
		return nil, nil
	}
	return headed(h, &c.Header)
}

// describe fills in the metadata of a request.
//
//go:noinline
func (p *proxy) describe(c *endpoint.Call, r *sending, meta *wire.Request) {
	left, trace := r.left(), c.Trace()
	meta.HasTimeout, meta.Timeout, meta.HasSent, meta.Sent = true, left, true, r.now.UnixMilli()
	meta.MediaType, meta.Attempt, meta.Ack, meta.Trace = r.mediaType, c.Attempt, left > ackWorth, trace
	meta.Tell = c.Observed() || r.sampled || wire.Sampled(trace) // who looks at a trace wants to see who served it
	if !r.single {
		meta.MaxReply, meta.TakesS2 = uint64(p.bus.maxMessage), p.bus.maxMessage > 0
	}
	if r.chunked {
		meta.Size = uint64(len(r.body))
	}
	if r.packed {
		meta.Encoding = wire.S2
	}
}

// headed is a request's headers with those of the application.
//
//go:noinline
func headed(h wire.Headers, app *endpoint.Header) (_ wire.Headers, err error) {
	if app.Len() > 0 {
		if h, err = compound(h, app); err != nil {
			return nil, err
		}
	}
	if err := oversize(h); err != nil {
		return nil, err
	}
	return h, nil
}

// compound adds the application's headers.
func compound(h wire.Headers, app *endpoint.Header) (wire.Headers, error) {
	if err := app.Fault(endpoint.InvalidArgument); err != nil {
		return nil, err.WithOutcome(endpoint.NotSent)
	}
	if h == nil {
		h = wire.Headers{}
	}
	wire.WriteApp(h, app)
	return h, nil
}

// rest makes headers of what the token can't say, nil if there is nothing. A trace goes as a header when it is sampled, so
// that any peer and the broker's own tracing see it; when the application sent one too, which would win; and when it is of
// a version that the token has no form for.
func rest(meta *wire.Request, traced bool) wire.Headers {
	var h wire.Headers
	set := func(name, value string) {
		if h == nil {
			h = wire.Headers{}
		}
		h[name] = []string{value}
	}
	if _, ok := wire.MediaLetter(meta.MediaType); !ok && meta.MediaType != wire.JSONType && meta.MediaType != "" {
		set(wire.ContentType, meta.MediaType)
	}
	if meta.Trace != "" && (traced || wire.Sampled(meta.Trace) || !strings.HasPrefix(meta.Trace, "00-")) {
		set(wire.TraceParent, meta.Trace)
		meta.Trace = ""
	}
	if meta.Attempt > 0 || meta.Size > 0 {
		if h == nil {
			h = wire.Headers{}
		}
		wire.WriteRest(h, meta)
	}
	return h
}
