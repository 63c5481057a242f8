package httpbridge

import (
	"iter"
	"net/http"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// Call is a request that was let in, and its endpoint as a function of its kind. Payloads pass through untouched; one of a reply
// without a media type has that of the request. The errors are what the client may be told: an [*endpoint.Error] each, whose text
// is empty where it is none of the client's business; they are logged already. It is for the goroutine that serves the request,
// and ends with it.
type Call struct {
	x       *exchange
	v       *visit
	t       *target
	kind    endpoint.Kind
	up      *uplink // of requests that are many
	header  http.Header
	trailer http.Header
	fault   error
}

// Kind is the kind of the endpoint. It is unary where the bridge can't find out, so that a call needs no discovery.
func (c *Call) Kind() endpoint.Kind { return c.kind }

// Header returns the headers of the reply that may pass to the client. They are known when a unary call or that of a client
// stream has returned, and with the first item of the other streams. The map is the caller's.
func (c *Call) Header() http.Header { return c.header }

// Trailer returns the trailers of the reply that may pass to the client. They are known when the call or the stream has ended. The
// map is the caller's.
func (c *Call) Trailer() http.Header { return c.trailer }

// Unary calls an endpoint that has one reply to one request.
func (c *Call) Unary(p *codec.Payload) (*codec.Payload, error) {
	c.x.readUntil(time.Time{}) // net/http waits for the next request already
	reply, err := c.x.call(c.v.ctx, c.v.bounded, c.t, c.x.deadline(c.v.asked), p)
	if err != nil {
		return nil, c.failed(err)
	}
	return reply, nil
}

// ServerStream calls an endpoint that has many replies to one request.
func (c *Call) ServerStream(p *codec.Payload) iter.Seq2[*codec.Payload, error] {
	return c.stream(&stream{kind: endpoint.ServerStreamKind, media: p.MediaType, single: p})
}

// ClientStream calls an endpoint that has one reply to many requests, which are of a media type. An error that in yields ends the
// call.
func (c *Call) ClientStream(mediaType string, in iter.Seq2[*codec.Payload, error]) (reply *codec.Payload, err error) {
	c.stream(&stream{kind: endpoint.ClientStreamKind, media: mediaType, up: c.up, many: in})(func(p *codec.Payload, e error) bool {
		reply, err = p, e
		return true
	})
	return reply, err
}

// BidiStream calls an endpoint that has many replies to many requests, which are of a media type. An error that in yields ends
// the call.
func (c *Call) BidiStream(mediaType string, in iter.Seq2[*codec.Payload, error]) iter.Seq2[*codec.Payload, error] {
	return c.stream(&stream{kind: endpoint.BidiStreamKind, media: mediaType, up: c.up, many: in})
}

func (c *Call) stream(s *stream) iter.Seq2[*codec.Payload, error] {
	s.x, s.target, s.visit = c.x, c.t, c.v
	return func(yield func(*codec.Payload, error) bool) {
		for p, err := range s.open() {
			if c.header == nil {
				c.header = c.x.passing(s.metadata())
			}
			if s.call == nil { // it has returned
				c.trailer = c.x.passing(&s.trailer)
			}
			if err != nil {
				yield(nil, c.failed(err))
				return
			}
			if !yield(p, nil) {
				return
			}
		}
		c.header, c.trailer = c.x.passing(s.metadata()), c.x.passing(&s.trailer)
	}
}

// failed records an error and returns what the client is told of it.
func (c *Call) failed(err error) error {
	c.fault = c.x.attributed(err)
	e, status := public(c.fault)
	c.x.record(http.StatusOK, status, c.fault)
	return e
}
