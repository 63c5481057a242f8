package httpbridge

import (
	"net/http"
	"strings"

	"postbus.example/endpoint"
)

// serve answers in the protocol that method, content type, Accept and the kind of the endpoint tell:
//
//	method     content type          Accept                   kind of endpoint             answered by
//	POST       a Protocol's          whatever                 all                          that Protocol, see foreign
//	POST       application/connect+… whatever                 all but unary                connect: connectFormat
//	POST       application/x-ndjson  as for server_stream     bidi_stream                  plainly: as for server_stream
//	POST       application/x-ndjson  whatever                 client_stream                plainly: one reply
//	POST       application/json      text/event-stream        server_stream                plainly: eventsFormat
//	POST       application/json      x-ndjson, json, */*, no  server_stream                plainly: linesFormat
//	POST       all others            whatever                 unary, or not known          unary
//	GET        none                  as for POST              server_stream, read-only     get: eventsFormat, linesFormat
//	GET, HEAD  none                  whatever                 unary, read-only             get: one reply
//
// To call client_stream and bidi_stream by one message of JSON is to call them by one line.
func (x *exchange) serve(t *target) error {
	known := x.directory.has(t.subject)
	if known != nil || !t.exact {
		x.directory.warm(x.start)
	}
	switch x.r.Method {
	case http.MethodPost:
		return x.post(t, known)
	case http.MethodGet, http.MethodHead:
		return x.get(t)
	default:
		return x.method(allowed(known))
	}
}

func (x *exchange) post(t *target, known *published) error {
	if err := x.sameOrigin(); err != nil {
		return err
	}
	if x.protocol != nil {
		return x.foreign(t)
	}
	mediaType, err := requestType(x.r.Header["Content-Type"])
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(mediaType, connectStream):
		return x.connect(t, mediaType)
	case known == nil && (isLines(mediaType) || wantsStream(x.r.Header["Accept"])):
		if known, err = x.known(t); err != nil { // then it is called for one reply, whose error tells more
			known = nil
		}
	}
	if known == nil || known.Kind == endpoint.UnaryKind {
		return x.unary(t, mediaType)
	}
	return x.plainly(t, known, mediaType)
}

// allowed is the value of Allow.
func allowed(p *published) string {
	switch {
	case p == nil || !p.ReadOnly:
		return http.MethodPost
	case p.Kind == endpoint.UnaryKind:
		return "GET, HEAD, POST"
	case p.Kind == endpoint.ServerStreamKind:
		return "GET, POST"
	}
	return http.MethodPost
}

// method refuses a request by its method.
func (x *exchange) method(allow string) error {
	allow = both(x.allow, allow)
	x.w.Header().Set("Allow", allow)
	return refuse(http.StatusMethodNotAllowed, endpoint.Unknown.Errorf("the method %.20q is not allowed, but %s is", x.r.Method, allow))
}
