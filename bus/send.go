package bus

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// sending is what is sent of one attempt, and until when.
type sending struct {
	to        string
	epoch     uint64
	slot      *slot
	secret    uint64
	body      []byte
	mediaType string
	now       time.Time
	left      time.Duration
	done      <-chan struct{}
	at        time.Time // when it was sent; zero: not known
	room      []byte    // where the request is composed
	from, end int       // of the reply subject in it
	held      *outlet   // what waits there until this was put
	framed    bool      // it may go in a frame
	counted   bool      // see batcher.enter
	size      uint64    // of the request, where it goes in chunks
	encoding  string    // of them
	single    bool      // its replies come in one message each
	sampled   bool      // it asks who answers, see terms
	gone      bool      // its caller left
	until     time.Time // when to look at the clock
	pubAck    *nats.Msg // a stream's acknowledgement, that came in place of the reply
	before    error     // of an adopted connection, when the request was about to be sent
}

// send publishes the request.
func (p *proxy) send(ctx context.Context, c *endpoint.Call, r *sending) error {
	room := p.bus.mux.rooms.Get().(*[]byte) // and not the call's own: it would keep it for as long as it waits
	r.room = (*room)[:0]
	err := p.transmit(ctx, c, r)
	if r.held != nil {
		r.held.let()
	}
	*room, r.room = r.room, nil
	p.bus.mux.rooms.Put(room)
	return err
}

// transmit composes the request in its room and gives it to the connection.
func (p *proxy) transmit(ctx context.Context, c *endpoint.Call, r *sending) error {
	h, err := p.compose(c, r)
	if err != nil {
		return err
	}
	size := len(r.body) + wire.Size(h)
	room := size + len(r.room) + len("\r\n")
	place, waited, err := p.bus.up.admit(room, r.now.Add(r.left), r.done)
	if err != nil {
		return p.bus.noPlace(ctx, err)
	}
	if p.bus.up.lost.Load() >= r.epoch { // what is sent from now on nobody would call lost
		place.release(room)
		return p.bus.sendError(nats.ErrDisconnected, 0)
	}
	if waited {
		r.now = time.Now() // how long it took to step back is counted from here
	}
	if r.framed {
		if h == nil && len(r.body) <= wire.MaxEntryBody && p.batch.add(place, room, r) {
			r.at = r.now // about
			return nil
		}
		r.framed = false
		r.slot.sendsTo(r.to)
	}
	if h == nil && len(r.body) < straight && r.to == p.subject && p.bus.puts(place, len(r.body)) {
		if r.at, err = place.put(r.room, r.body, r.now); err != nil {
			place.release(room)
			return p.bus.sendError(err, size)
		}
		return nil
	}
	defer place.release(room)
	token := string(r.token())
	if h == nil {
		err = p.bus.nc.PublishRequest(r.to, token, r.body)
	} else {
		err = p.bus.nc.PublishMsg(&nats.Msg{Subject: r.to, Reply: token, Header: nats.Header(h), Data: r.body})
	}
	if err != nil {
		return p.bus.sendError(err, size)
	}
	return nil
}

// puts reports whether a message of so many bytes goes into the outlet past nats.go.
func (b *Bus) puts(o *outlet, size int) bool {
	if o == nil || !o.ready.Load() || int64(size) > b.maxPayload.Load() {
		return false
	}
	return !b.denials.shared.Load() || b.passedOn() // behind what its user published
}

// passedOn reports whether nats.go has nothing left to write.
func (b *Bus) passedOn() bool {
	n, err := b.nc.Buffered()
	return n == 0 && err == nil
}

// token is the reply subject in the room.
func (r *sending) token() []byte {
	return r.room[r.from:r.end]
}

// compose makes the reply subject, and the line of the protocol around it, and the headers of the request. Metadata rides in
// the reply subject; only what has no place there makes headers.
func (p *proxy) compose(c *endpoint.Call, r *sending) (h wire.Headers, err error) {
	trace := c.Trace()
	var meta wire.Request // not of a literal, which would stand on the stack beside it
	meta.HasTimeout, meta.Timeout, meta.HasSent, meta.Sent = true, r.left, true, r.now.UnixMilli()
	meta.MediaType, meta.Attempt, meta.Ack, meta.Trace = r.mediaType, c.Attempt, r.left > ackWorth, trace
	meta.Tell = c.Observed() || r.sampled || wire.Sampled(trace) // who looks at a trace wants to see who served it
	if !r.single {
		meta.MaxReply, meta.TakesS2 = uint64(p.bus.maxMessage), p.bus.maxMessage > 0
	}
	meta.Size, meta.Encoding = r.size, r.encoding
	b := append(append(append(r.room, "PUB "...), r.to...), ' ')
	r.from = len(b)
	b = append(b, p.bus.mux.prefix...)
	b = wire.AppendID(b, r.slot.index, r.secret)
	if p.bus.headerMetadata {
		h = wire.Headers{}
		wire.WriteRequest(h, &meta)
	} else {
		h = rest(&meta, c.Header.Get(wire.TraceParent) != "")
		b = wire.AppendToken(b, &meta)
	}
	r.end = len(b)
	b = append(strconv.AppendInt(append(b, ' '), int64(len(r.body)), 10), "\r\n"...)
	r.room = b
	if c.Header.Len() > 0 {
		if h, err = compound(h, &c.Header); err != nil {
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
