package httpbridge

import (
	"net/http"
	"strings"

	"postbus.example/endpoint"
)

// connectStream is the head of the media types of Connect's streams.
const connectStream = "application/connect+"

// serve answers in the protocol that method, content type, Accept and the kind of the endpoint tell:
//
//	method     content type          Accept                   kind of endpoint             answered by
//	POST       a Protocol's          whatever                 all                          that Protocol, see foreign
//	POST       application/connect+… whatever                 all but unary                connectStream
//	POST       application/x-ndjson  as for server_stream     client_stream, bidi_stream   lines
//	POST       all others            text/event-stream        server_stream                events
//	POST       all others            x-ndjson, json, */*, no  server_stream                lines
//	POST       all others            whatever                 unary, or not known          unary
//	GET        none                  as for POST              server_stream, read-only     events, lines
//	GET, HEAD  none                  whatever                 unary, read-only             get
func (x *exchange) serve(t *target) error {
	if !t.exact || x.directory.has(t.subject) != nil {
		x.directory.warm(x.start)
	}
	if x.r.Method != http.MethodPost {
		return x.method(http.MethodPost)
	}
	if err := x.origin.Check(x.r); err != nil {
		return endpoint.PermissionDenied.Wrap(err, "a request of another origin").WithOutcome(endpoint.NotSent)
	}
	if x.protocol != nil {
		return x.foreign(t)
	}
	mediaType, err := requestType(x.r.Header["Content-Type"])
	if err != nil {
		return err
	}
	if strings.HasPrefix(mediaType, connectStream) {
		return unsupported("streams are not served yet")
	}
	return x.unary(t, mediaType)
}

// method refuses a request by its method.
func (x *exchange) method(allow string) error {
	allow = both(x.allow, allow)
	x.w.Header().Set("Allow", allow)
	return refuse(http.StatusMethodNotAllowed, endpoint.Unknown.Errorf("the method %.20q is not allowed, but %s is", x.r.Method, allow))
}
