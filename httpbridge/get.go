package httpbridge

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// get serves endpoints that are read-only by GET: Connect's unary GET
// (https://connectrpc.com/docs/protocol#unary-get-request), and streams of events for browsers' EventSource. Merely idempotent ones
// change something, which no link and no cache should.
func (x *exchange) get(t *target) error {
	p, err := x.known(t)
	switch {
	case err == error(errUndiscovered): //nolint:errorlint // itself: nothing is known to be read-only
		return x.method(http.MethodPost)
	case err != nil:
		return err
	}
	if allow := allowed(p); !strings.Contains(allow, x.r.Method) {
		return x.method(allow)
	}
	var f format
	if p.Kind == endpoint.ServerStreamKind {
		if f, err = x.negotiated(); err != nil {
			return err
		}
		x.endless = true
	}
	v, err := x.admit(t)
	if err != nil {
		return err
	}
	defer v.end()
	if body, err := x.read(v.bounded, v.life); err != nil || len(body) > 0 { // some send an empty one, in chunks
		return cmp.Or(err, badQuery("a GET has no body: its message stands in the query"))
	}
	message, err := queryMessage(x.r.URL.RawQuery, x.limits.Body)
	if err != nil {
		return err
	}
	if f != nil {
		return x.emit(&stream{x: x, target: t, kind: p.Kind, visit: &v, media: message.MediaType, single: message}, f)
	}
	x.readUntil(time.Time{}) // as in unary
	reply, err := x.call(v.ctx, v.bounded, t, x.deadline(v.asked), message)
	if err != nil {
		return err
	}
	x.give(x.replyType(reply.MediaType, message.MediaType), reply.Data)
	return nil
}

// queryMessage reads the request that a query holds:
//
//	message=…        the message, by default {} for JSON and nothing for others
//	encoding=json    its media type is application/json; by default json
//	base64=1         the message is in base64, of either alphabet, padded or not; by default it stands as it is
//	compression=gzip it was compressed before that; by default it was not
//	connect=v1       the protocol's version, of which there is one
//
// With connect=v1, message and encoding must be there. Other parameters are left alone, whoever they are for.
func queryMessage(query string, limit int) (*codec.Payload, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, badQuery("the query can't be read")
	}
	for _, name := range []string{"message", "encoding", "base64", "compression", "connect"} {
		if len(values[name]) > 1 {
			return nil, badQuery("the query has " + name + " twice")
		}
	}
	if v := values.Get("connect"); v != "" && v != "v1" || v == "v1" && !(values.Has("message") && values.Has("encoding")) {
		return nil, badQuery("the query needs message and encoding, and connect is v1")
	}
	media, err := queryType(values.Get("encoding"))
	if err != nil {
		return nil, err
	}
	data := []byte(values.Get("message"))
	if !values.Has("message") && media == jsonType {
		data = []byte("{}")
	}
	if data, err = queryDecoded(values, data, limit); err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, oversize("the message", limit)
	}
	return &codec.Payload{MediaType: media, Data: data}, nil
}

func badQuery(msg string) error {
	return endpoint.InvalidArgument.New(msg).WithOutcome(endpoint.NotSent)
}

func queryType(encoding string) (string, error) {
	if encoding == "" {
		return jsonType, nil
	}
	if !token(encoding) {
		return "", badQuery("the query's encoding can't be read")
	}
	media, err := requestType([]string{"application/" + encoding})
	if err == nil && strings.HasPrefix(media, connectStream) {
		err = unsupported("the query's encoding is that of a stream")
	}
	return media, err
}

func queryDecoded(values url.Values, data []byte, limit int) (_ []byte, err error) {
	switch values.Get("base64") {
	case "", "0":
	case "1":
		text := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(string(data), "="))
		if data, err = base64.RawURLEncoding.DecodeString(text); err != nil {
			return nil, badQuery("the query's message is not base64")
		}
	default:
		return nil, badQuery("the query's base64 is not 1")
	}
	gzipped, err := encoding(values["compression"])
	if err != nil || !gzipped || len(data) == 0 {
		return data, err
	}
	return inflate(data, limit)
}
