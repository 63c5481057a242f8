package httpbridge

import (
	"errors"
	"net/http"
	"time"

	"postbus.example/endpoint"
)

// Protocol is one that a bridge speaks besides its own, on the same paths, for the same endpoints and under the same rules: what
// is exposed, authentication, allow-lists, limits, timeouts, drain and log are the bridge's. Package grpcbridge has the one for
// gRPC and gRPC-Web. Its methods are called concurrently.
type Protocol interface {
	// Speaks reports whether a request is of the protocol, by its headers, as a rule by Content-Type. Requests whose method is not
	// POST are never let in.
	Speaks(r *http.Request) bool

	// Timeout reads how long a client is willing to wait; ok is false if it doesn't say. An error refuses the request.
	Timeout(h http.Header) (d time.Duration, ok bool, err error)

	// Serve answers a request that was let in. It reads its messages from the body, calls the endpoint by the method of Call
	// that is of c's kind, once, and writes what comes of it. The body is bounded in time, the answer too; how long a message may
	// be is for the protocol to heed.
	Serve(w http.ResponseWriter, r *http.Request, c *Call)

	// Fail answers a request that was not let in. Nothing was written.
	Fail(w http.ResponseWriter, r *http.Request, err *endpoint.Error)
}

// WithProtocol adds a protocol, which is made for the limits of the bridge. Where several speak a request's, the first given
// serves it. By default there is none but the bridge's own.
func WithProtocol(with func(Limits) Protocol) Option {
	return func(s *settings) {
		if with == nil {
			s.fault("WithProtocol", errors.New("the function is nil"))
			return
		}
		s.protocols = append(s.protocols, with)
	}
}

// speak makes the protocols.
func (s *settings) speak(l Limits) (all []Protocol) {
	for _, with := range s.protocols {
		p := with(l)
		if p == nil {
			s.fault("WithProtocol", errors.New("the function returned nil"))
			continue
		}
		all = append(all, p)
	}
	return all
}

// speaker returns the protocol of a request, nil if it is one of the bridge's own.
func (b *Bridge) speaker(r *http.Request) Protocol {
	for _, p := range b.protocols {
		if p.Speaks(r) {
			return p
		}
	}
	return nil
}

// foreign serves a request of another protocol.
func (x *exchange) foreign(t *target) error {
	kind := x.kindOf(t)
	x.endless = kind != endpoint.UnaryKind
	v, err := x.admit(t)
	if err != nil {
		return err
	}
	defer v.end()
	c := &Call{x: x, v: &v, t: t, kind: kind, up: &uplink{x: x}}
	x.called = c
	body := &foreignBody{x: x, v: &v}
	if kind.StreamsIn() {
		body.up = c.up
	}
	r := x.r.WithContext(v.ctx)
	r.Body = body
	if x.endless {
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Time{}) // that of each write remains
	}
	defer func() {
		if x.unread {
			x.readUntil(time.Now().Add(patience)) // net/http looks at what is left
		}
		if c.fault == nil && body.fault != nil {
			_, status := public(body.fault)
			x.record(http.StatusOK, status, body.fault)
		}
	}()
	x.protocol.Serve(&foreignWriter{x.w, x.timeouts.Write}, r, c)
	return nil
}

// kindOf is what the directory knows of an endpoint. What nobody knows is unary, and so is what no endpoint can be.
func (x *exchange) kindOf(t *target) endpoint.Kind {
	if p, _ := x.directory.find(x.client, t.subject); p != nil && p.Kind <= endpoint.BidiStreamKind {
		return p.Kind
	}
	return endpoint.UnaryKind
}
