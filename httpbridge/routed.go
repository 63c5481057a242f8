package httpbridge

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// routed answers by a route. Its steps are those of unary; what differs is where the request comes from.
func (x *exchange) routed(r *route) error {
	x.subject = r.subject
	if err := x.sameOrigin(); err != nil {
		return err
	}
	fields, err := x.fields(r)
	if err != nil {
		return err
	}
	mediaType, err := x.routeType(len(fields) > 0)
	if err != nil {
		return err
	}
	x.directory.warm(x.start)
	known, err := x.directory.find(x.client, r.subject)
	if err == nil && known != nil && known.Kind != endpoint.UnaryKind {
		return x.routedStream(r, known, mediaType, fields)
	}
	v, err := x.admit(r.target)
	if err != nil {
		return err
	}
	defer v.end()
	p, err := x.compose(&v, r, mediaType, fields)
	if err != nil {
		return err
	}
	deadline := x.answerBy(&v)
	reply, err := x.call(v.ctx, v.bounded, r.target, deadline, p)
	if err != nil {
		return err
	}
	x.give(x.replyType(reply.MediaType, p.MediaType), reply.Data)
	return nil
}

// routedStream is to routed what plainly is to unary: fields make the one message, which a stream of requests is then; without
// any, the body may be many lines.
func (x *exchange) routedStream(r *route, known *published, mediaType string, fields []field) error {
	if x.r.Method == http.MethodHead {
		return x.method(http.MethodGet) // there is no telling how long it would take to answer nothing
	}
	f, err := x.plainFormat(known, mediaType)
	if err != nil {
		return err
	}
	x.endless = true
	v, err := x.admit(r.target)
	if err != nil {
		return err
	}
	defer v.end()
	s := &stream{x: x, target: r.target, kind: known.Kind, visit: &v, media: jsonType}
	if isLines(mediaType) {
		if s.up, err = x.lined(); err == nil {
			err = x.both()
		}
	} else if s.single, err = x.compose(&v, r, mediaType, fields); err == nil {
		s.media = s.single.MediaType
	}
	if err != nil {
		return err
	}
	return x.emit(s, f)
}

// fields are what path and query have.
func (x *exchange) fields(r *route) ([]field, error) {
	if len(x.r.URL.Path)+len(x.r.URL.RawQuery) > x.limits.Header {
		return nil, refuse(http.StatusRequestURITooLong, endpoint.InvalidArgument.Errorf("the path and the query have more than %d bytes", x.limits.Header))
	}
	query, err := queryOf(x.r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	return append(r.values(x.r.URL.EscapedPath()), query...), nil
}

// routeType reads Content-Type. GET has no body. Without a type the other methods but POST may have none either: no page can
// make a browser send them without asking first.
func (x *exchange) routeType(merged bool) (string, error) {
	if safe(x.r.Method) {
		if x.unread && x.r.ContentLength != 0 {
			return "", wrongf("a %s has no body; its fields are in the path and the query", x.r.Method)
		}
		return jsonType, nil
	}
	if len(x.r.Header["Content-Type"]) == 0 && x.r.Method != http.MethodPost && x.r.ContentLength == 0 {
		return jsonType, nil
	}
	mediaType, err := requestType(x.r.Header["Content-Type"])
	if err == nil && merged && mediaType != jsonType {
		return "", unsupported("fields of the path and the query join a body of application/json only")
	}
	return mediaType, err
}

// compose reads the body and makes the request that goes to the endpoint. A body without company passes untouched.
func (x *exchange) compose(v *visit, r *route, mediaType string, fields []field) (*codec.Payload, error) {
	body, err := x.read(v.bounded, v.life)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 && len(body) > 0 {
		return &codec.Payload{MediaType: mediaType, Data: body}, nil
	}
	if len(body) > 0 && mediaType != jsonType {
		return nil, unsupported("fields of the path and the query join a body of application/json only")
	}
	var s *shape
	if len(fields) > 0 {
		schema, err := x.directory.request(v.bounded, r.subject)
		if err != nil {
			return nil, err
		}
		s = r.target.shape.of(schema)
	}
	data, err := compose(s, fields, body)
	if err != nil {
		return nil, err
	}
	return &codec.Payload{MediaType: jsonType, Data: data}, nil
}

// request returns the schema of an endpoint's request, nil if it is not known. It fails only if ctx ends.
func (d *directory) request(ctx context.Context, subject string) (json.RawMessage, error) {
	p, err := d.find(ctx, subject)
	if p == nil {
		if ctx.Err() == nil {
			err = nil // without a schema values are strings
		}
		return nil, err
	}
	if p.Request == nil && strings.HasPrefix(p.Metadata["rpc.request"], "sha256:") {
		d.complete(d.seen.Load())
		p = d.has(subject)
	}
	return p.Request, nil
}
