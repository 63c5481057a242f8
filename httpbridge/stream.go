package httpbridge

import (
	"context"
	"errors"
	"iter"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// stream is a call of many messages, one way or both, in progress.
//
//	uplink     the request's body, message by message     read in the call's own goroutine, as the service takes them
//	replies    the call, as an iterator                   pulled by the request's goroutine
//	downlink   the answer, item by item                   written and flushed before the next one is pulled
//
// So a client that reads slowly slows the service down, and a service that takes its time the client.
type stream struct {
	x      *exchange
	target *target
	kind   endpoint.Kind
	visit  *visit
	media  string                           // of the messages
	single *codec.Payload                   // the request, if it is one message
	up     *uplink                          // the request, if it is many; nil if it is one
	many   iter.Seq2[*codec.Payload, error] // the request, if it is many that another protocol reads
	down   *downlink                        // nil: one reply, which is written when it is there

	call          *endpoint.Call  // the attempt that runs
	head, trailer endpoint.Header // metadata of the last attempt that ended
}

// callers are the functions that call a target as a stream. An item's media type can't stand for that of the whole call, so
// there is one for each.
type callers struct {
	server endpoint.ServerStream[*codec.Payload, *codec.Payload]
	client endpoint.ClientStream[*codec.Payload, *codec.Payload]
	bidi   endpoint.BidiStream[*codec.Payload, *codec.Payload]
}

// streaming makes the callers for one media type, or finds them.
func (t *target) streaming(tr endpoint.Transport, mediaType string) *callers {
	if c, ok := t.streams.Load(mediaType); ok {
		return c.(*callers)
	}
	opts := []endpoint.Option{endpoint.Codec(opaque(mediaType)), endpoint.With(watched)}
	c := &callers{
		server: endpoint.ServerStreamCaller[*codec.Payload, *codec.Payload](tr, t.subject, opts...),
		client: endpoint.ClientStreamCaller[*codec.Payload, *codec.Payload](tr, t.subject, opts...),
		bidi:   endpoint.BidiStreamCaller[*codec.Payload, *codec.Payload](tr, t.subject, opts...),
	}
	if mediaType == jsonType || mediaType == protoType || mediaType == cborType { // not whatever a client thinks of
		t.streams.Store(mediaType, c)
	}
	return c
}

const (
	protoType = "application/proto"
	cborType  = "application/cbor"
)

// opaque is a codec that is a name: payloads pass every codec, and there is nothing else here.
type opaque string

func (o opaque) Name() string { return string(o) }

func (opaque) Append([]byte, any) ([]byte, error) { return nil, errOpaque }

func (opaque) Decode([]byte, any) error {
	return &codec.DecodeError{Offset: -1, Problem: errOpaque.Error()}
}

var errOpaque = errors.New("only payloads pass")

type streamKey struct{}

// watched is client middleware: it shows the stream its call, whose metadata comes before its end.
func watched(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		s, ok := ctx.Value(streamKey{}).(*stream)
		if !ok || !s.x.tells {
			return next(ctx, c)
		}
		s.call = c
		defer func() { s.call, s.head, s.trailer = nil, c.Reply.Clone(), c.Trailer.Clone() }()
		return next(ctx, c)
	}
}

// replies calls the endpoint. What comes out is its items, or its one reply.
func (s *stream) replies(ctx context.Context) iter.Seq2[*codec.Payload, error] {
	c := s.target.streaming(s.x.exposed.transport, s.media)
	switch s.kind {
	case endpoint.ClientStreamKind:
		return func(yield func(*codec.Payload, error) bool) { yield(c.client(ctx, s.input())) }
	case endpoint.BidiStreamKind:
		return c.bidi(ctx, s.input())
	case endpoint.UnaryKind, endpoint.ServerStreamKind, endpoint.GatherKind: // the first and the last never get here
	}
	return c.server(ctx, s.single)
}

// input is the request's messages.
func (s *stream) input() iter.Seq2[*codec.Payload, error] {
	switch {
	case s.many != nil:
		return s.up.input(s.many)
	case s.up != nil:
		return s.up.messages(s.media)
	}
	return func(yield func(*codec.Payload, error) bool) { yield(s.single, nil) }
}

// context is that of the call: without a deadline, unless the client asked for one.
func (s *stream) context() (context.Context, func()) {
	x, v := s.x, s.visit
	ctx, leave := v.ctx, func() {}
	if x.auth != nil {
		ctx, leave = join(ctx, v.bounded)
	}
	ctx = context.WithValue(ctx, streamKey{}, s)
	if v.asked == nil {
		return ctx, leave
	}
	ctx, cancel := endpoint.WithDeadline(ctx, x.deadline(v.asked), nil)
	return ctx, func() { cancel(); leave() }
}

// run calls the endpoint and sends on what it says. The error is what is left to be said.
func (s *stream) run(d *downlink) error {
	s.down, d.stream, d.abort = d, s, s.visit.life.cancel
	for p, err := range s.open() {
		if err == nil {
			err = d.item(p)
		}
		if err != nil {
			return err
		}
	}
	return d.end(nil)
}

// one calls the endpoint for its one reply.
func (s *stream) one() (reply *codec.Payload, err error) {
	s.open()(func(p *codec.Payload, e error) bool {
		reply, err = p, e
		return true
	})
	return reply, err
}

// open is replies with all that has to be looked after meanwhile.
func (s *stream) open() iter.Seq2[*codec.Payload, error] {
	return func(yield func(*codec.Payload, error) bool) {
		if s.single != nil {
			if err := textual(s.single); err != nil {
				yield(nil, err)
				return
			}
		}
		s.x.readUntil(time.Time{}) // net/http waits for the next request, or the uplink for a message, as long as it takes
		ctx, leave := s.context()
		defer leave()
		if s.up != nil || s.down != nil {
			defer startClock(s).stop()
		}
		if s.up != nil {
			defer s.up.stop()
		}
		for p, err := range s.replies(ctx) {
			switch {
			case err != nil && s.up != nil && s.up.late.Load():
				err = errLate
			case err != nil:
				err = s.x.judge(ctx, s.target, err)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
		s.x.exposed.keep(s.target)
	}
}

// metadata returns what is known of the reply's headers by now.
func (s *stream) metadata() *endpoint.Header {
	if s.call != nil {
		return &s.call.Reply
	}
	return &s.head
}
