package httpbridge

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"postbus.example/endpoint"
)

const jsonType = "application/json"

// WriteError answers a request with an error as the bridge does: Connect's error JSON, the status of its code,
// Retry-After on 429 and 503. It is for HTTP middleware in front of a bridge, so that its refusals look like the rest. The
// text of an [*endpoint.Error] or of its code is shown, but for internal, unknown and data_loss that no peer authored; other
// errors are told by their code alone. Nothing must have been written before; headers that are set stay. A nil err is an
// internal error.
func WriteError(w http.ResponseWriter, r *http.Request, err error) { writeError(w, err) }

// refusal is an error whose status its code doesn't tell, because the fault lies in HTTP itself.
type refusal struct {
	status int
	err    *endpoint.Error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(status int, err *endpoint.Error) error {
	return &refusal{status, err.WithOutcome(endpoint.NotSent)}
}

func notFound() error {
	return refuse(http.StatusNotFound, endpoint.Unimplemented.New("there is no such endpoint"))
}

// unsupported refuses a media type. Its code is what a Connect client makes of the status.
func unsupported(msg string) error {
	return refuse(http.StatusUnsupportedMediaType, endpoint.Unknown.New(msg).WithReason(endpoint.ReasonMediaType))
}

// writeError writes the answer and returns its status.
func writeError(w http.ResponseWriter, err error) int {
	e, status := public(err)
	body, fault := e.MarshalJSON()
	if fault != nil { // no value it has can't be encoded
		body = []byte(`{"code":"internal"}`)
	}
	h := w.Header()
	h.Del("Content-Encoding")
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		challenged(h, err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if after := retryAfter(e); after != "" {
			h.Set("Retry-After", after)
		}
	case http.StatusUnsupportedMediaType:
		h.Set("Content-Type", jsonType+"; charset=utf-8") // for people: it is no answer of Connect's, which was not asked
		h.Set("Accept-Post", "application/json, application/proto, application/cbor")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to be told
	return status
}

// retryAfter gives whole seconds, one if the error advises nothing, "" if a retry won't help.
func retryAfter(e *endpoint.Error) string {
	if e.RetryAfter < 0 || e.Reason() == endpoint.ReasonReplyTooLarge {
		return ""
	}
	after := cmp.Or(e.RetryAfter, time.Second)
	return strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10)
}

// public returns what the client is told, and the status. It is the table of codes, but for what HTTP has a status of its
// own.
func public(err error) (*endpoint.Error, int) {
	e, ok := errors.AsType[*endpoint.Error](err)
	switch {
	case err == nil:
		e = endpoint.Internal.New("")
	case !ok || e == nil:
		e = endpoint.CodeOf(err).New("")
	}
	if e.Code == endpoint.OK || e.Code > endpoint.Unauthenticated {
		e = endpoint.Unknown.New("")
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return e, r.status
	}
	switch reason := e.Reason(); {
	case reason == endpoint.ReasonConstruction:
		return endpoint.Internal.New(""), http.StatusInternalServerError // of our own caller: not the client's doing
	case reason == endpoint.ReasonRequestTooLarge && e.Code == endpoint.ResourceExhausted:
		return e, http.StatusRequestEntityTooLarge
	case reason == endpoint.ReasonHeaderTooLarge && e.Code == endpoint.InvalidArgument:
		return e, http.StatusRequestHeaderFieldsTooLarge
	case reason == endpoint.ReasonMediaType && e.Code == endpoint.InvalidArgument:
		return endpoint.Unknown.New(e.Message), http.StatusUnsupportedMediaType
	case secret(e):
		return e.Code.New("").WithRetryAfter(e.RetryAfter), e.Code.Status()
	}
	return e, e.Code.Status()
}

// secret reports whether an error's text is nobody's business: nobody authored it, it tells of the inside. Errors that a
// transport makes on behalf of a handler (a panic, a reply that can't be encoded) give a reason, handlers don't.
func secret(e *endpoint.Error) bool {
	switch e.Code {
	case endpoint.Internal, endpoint.Unknown, endpoint.DataLoss:
		return !e.Remote() || e.Reason() != ""
	default:
		return false
	}
}
