package httpbridge

import (
	"fmt"
	"net/http"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// known finds out what is published of a target that the directory is needed for.
func (x *exchange) known(t *target) (*published, error) {
	p, err := x.directory.find(x.client, t.subject)
	switch {
	case err != nil:
		return nil, err
	case p != nil:
		return p, nil
	case t.exact:
		return nil, endpoint.Unavailable.Errorf("nobody serves %s", t.subject).
			WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotSent)
	}
	return nil, notFound()
}

// plainly calls a stream for clients that don't speak Connect: one message of JSON or many lines of it, answered by events or
// lines, or by one message if that is all that is there.
func (x *exchange) plainly(t *target, p *published, mediaType string) error {
	f, err := x.plainFormat(p, mediaType)
	if err != nil {
		return err
	}
	x.endless = true
	v, err := x.admit(t)
	if err != nil {
		return err
	}
	defer v.end()
	s := &stream{x: x, target: t, kind: p.Kind, visit: &v, media: mediaType}
	if isLines(mediaType) {
		s.media = jsonType
		if s.up, err = x.lined(); err == nil {
			err = x.both()
		}
	} else {
		s.single = &codec.Payload{MediaType: mediaType}
		s.single.Data, err = x.read(v.bounded, v.life)
	}
	if err != nil {
		return err
	}
	return x.emit(s, f)
}

// plainFormat finds out whether a stream can be called so, and how it is answered.
func (x *exchange) plainFormat(p *published, mediaType string) (format, error) {
	switch {
	case len(x.r.Header["Connect-Protocol-Version"]) > 0:
		return nil, unsupported(fmt.Sprintf("%s is %v, and takes %sjson or the like", p.Subject, p.Kind, connectStream))
	case isLines(mediaType) && !p.Kind.StreamsIn():
		return nil, unsupported("this endpoint takes one message, as application/json")
	case !isLines(mediaType) && !isJSON(codec.MediaType(mediaType)):
		return nil, unsupported("a stream that is answered by events or lines takes application/json")
	case !p.Kind.StreamsOut():
		return nil, nil
	}
	return x.negotiated()
}

// negotiated is the format that Accept asks for.
func (x *exchange) negotiated() (format, error) {
	switch negotiate(x.r.Header["Accept"]) {
	case events:
		return &eventsFormat{x: x}, nil
	case ndjson:
		return &linesFormat{x: x, media: ndjsonType}, nil
	case jsonl:
		return &linesFormat{x: x, media: jsonlType}, nil
	case unacceptable:
	}
	return nil, refuse(http.StatusNotAcceptable, endpoint.Unknown.Errorf("a stream is answered as %s, %s or %s", eventsType, ndjsonType, jsonlType))
}

// emit answers in a format, or by the one reply if that is nil.
func (x *exchange) emit(s *stream, f format) (err error) {
	if f == nil {
		reply, err := s.one()
		x.copyOut(s.metadata(), "")
		x.copyOut(&s.trailer, "Trailer-")
		if err != nil {
			return err
		}
		x.write(x.replyType(reply.MediaType, s.media), reply.Data)
		return nil
	}
	if x.down, err = x.open(f); err != nil {
		return err
	}
	if err = s.run(x.down); err != nil && !x.down.talks() { // it becomes an answer of its own
		x.copyOut(s.metadata(), "")
		x.copyOut(&s.trailer, "Trailer-")
	}
	return err
}
