package httpbridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// connectStream is the head of the media types of Connect's streams; what comes after it is that of the messages, under
// application/.
const connectStream = "application/connect+"

// connect serves Connect's streams, all kinds: enveloped messages both ways, the last one with the error and the metadata.
// From here on errors stand in that one, under 200, because that is where Connect's clients look for them.
func (x *exchange) connect(t *target, mediaType string) error {
	p, err := x.known(t)
	if err != nil {
		return err
	}
	f := &connectFormat{x: x, contentType: mediaType, media: "application/" + strings.TrimPrefix(mediaType, connectStream)}
	if p.Kind == endpoint.UnaryKind {
		return unsupported(fmt.Sprintf("%s is unary, and takes %.80q", p.Subject, f.media))
	}
	if x.down, err = x.open(f); err != nil {
		return err
	}
	x.endless = true
	v, err := x.admit(t)
	if err != nil {
		return err
	}
	defer v.end()
	u, err := x.enveloped(f)
	if err != nil {
		return err
	}
	s := &stream{x: x, target: t, kind: p.Kind, visit: &v, media: f.media}
	if p.Kind.StreamsIn() {
		s.up, err = u, x.both()
	} else {
		s.single, err = x.sole(&v, u, f.media)
	}
	if err != nil {
		return err
	}
	return s.run(x.down)
}

// enveloped makes the reader of the request, and finds out what may be compressed.
func (x *exchange) enveloped(f *connectFormat) (*uplink, error) {
	h := x.r.Header
	if whole, err := encoding(h["Content-Encoding"]); err != nil || whole {
		return nil, endpoint.Unimplemented.New("a stream isn't compressed as a whole, but message by message: see Connect-Content-Encoding").
			WithOutcome(endpoint.NotSent)
	}
	gzipped, err := encoding(h["Connect-Content-Encoding"])
	if err != nil {
		return nil, err
	}
	f.gzips = acceptsGzip(h["Connect-Accept-Encoding"])
	u := &uplink{x: x}
	e := &envelopes{from: u, limit: x.limits.Body, gzipped: gzipped}
	u.next = e.next
	return u, nil
}

// both lets the answer begin before the body ended.
func (x *exchange) both() error {
	x.duplex = true
	if x.r.ProtoMajor >= 2 {
		return nil
	}
	if err := http.NewResponseController(x.w).EnableFullDuplex(); err != nil {
		return endpoint.Internal.Wrap(err, "")
	}
	return nil
}

// sole reads a request that must be one message, to the end of the body: that is what lets net/http notice that a client left.
func (x *exchange) sole(v *visit, u *uplink, mediaType string) (*codec.Payload, error) {
	if !x.unread {
		return nil, errNoMessage
	}
	x.readBefore(v.bounded)
	var data []byte
	err := v.life.read(func() (err error) {
		if data, err = u.next(); err == io.EOF { //nolint:errorlint // itself: the end
			return errNoMessage
		}
		if err == nil {
			if _, err = u.next(); err == nil {
				return errTwoMessages
			}
		}
		if err != io.EOF { //nolint:errorlint // itself: the end
			return err
		}
		x.unread = false
		return nil
	})
	if err == nil {
		err = v.bounded.Err()
	}
	if _, ours := errors.AsType[*endpoint.Error](err); ours {
		return nil, err
	}
	if err != nil {
		return nil, x.readFault(v.bounded, err)
	}
	return &codec.Payload{MediaType: mediaType, Data: data}, nil
}

var (
	errNoMessage   = endpoint.Unimplemented.New("the request has no message, and must have one").WithOutcome(endpoint.NotSent)
	errTwoMessages = endpoint.Unimplemented.New("the request has more than one message, and must have one").WithOutcome(endpoint.NotSent)
)

// connectFormat writes Connect's envelopes.
type connectFormat struct {
	x           *exchange
	contentType string
	media       string // of the messages
	gzips       bool
	frame       [envelopeHead]byte
}

func (f *connectFormat) head() {
	h := f.x.w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Connect-Accept-Encoding", "gzip")
	if f.gzips {
		h.Set("Connect-Content-Encoding", "gzip")
	}
}

func (*connectFormat) inBand() bool { return true }

func (*connectFormat) pulse() error { return nil }

func (f *connectFormat) check(p *codec.Payload) error {
	if p.MediaType == "" || p.MediaType == f.media || codec.MediaType(p.MediaType) == codec.MediaType(f.media) {
		return nil
	}
	return endpoint.Internal.Errorf("an item is of type %.80q, in a stream of %.80q", p.MediaType, f.media)
}

func (f *connectFormat) item(p *codec.Payload) error {
	flags, data := byte(0), p.Data
	if f.gzips && len(data) >= minGzip && compressible(codec.MediaType(f.media)) {
		flags, data = flagCompressed, deflate(data)
	}
	return f.put(flags, data)
}

func (f *connectFormat) put(flags byte, data []byte) error {
	if _, err := f.x.w.Write(putHead(&f.frame, flags, len(data))); err != nil {
		return err
	}
	_, err := f.x.w.Write(data)
	return err
}

// endStream is the last message, https://connectrpc.com/docs/protocol#error-end-stream.
type endStream struct {
	Error    *endpoint.Error `json:"error,omitempty"`
	Metadata http.Header     `json:"metadata,omitempty"`
}

func (f *connectFormat) end(e *endpoint.Error, t http.Header) error {
	return f.put(flagEnd, marshal(endStream{e, t}))
}

// marshal writes JSON of our own, which always can be.
func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":{"code":"internal"}}`)
	}
	return text
}
