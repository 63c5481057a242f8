package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// Headers is the form NATS has them in; nats.Header converts to it.
type Headers = map[string][]string

// Size returns what the headers weigh, counted as [endpoint.MaxHeaderBytes] does.
func Size(h Headers) int {
	if len(h) == 0 { // to range over nothing takes a while
		return 0
	}
	n := 0
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// Lines returns how many headers there are, counted as [endpoint.MaxHeaderLines] does.
func Lines(h Headers) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}

// names appends the names of h that are wanted, in order: what is read must not depend on the order of a map.
func names(dst []string, h Headers, want func(string) bool) []string {
	for name := range h {
		if want(name) {
			dst = append(dst, name)
		}
	}
	slices.Sort(dst)
	return dst
}

func all(string) bool { return true }

func application(name string) bool { return !reserved(name) }

// index finds a name in a list, in any case; -1 if it is not there.
func index(list []string, name string) int {
	for i := range list {
		if strings.EqualFold(list[i], name) {
			return i
		}
	}
	return -1
}

// requestHeaders are the reserved headers that are understood on a request. Others are ignored.
var requestHeaders = [...]string{Timeout, Sent, ContentType, Ack, Tell, Attempt, Stream, Window, Heartbeat, SizeHeader, MaxReply}

// ReadRequest adds what the headers of a request say to r, which may hold a token's metadata: a header of the same
// meaning wins. Everything that is not the protocol's own goes to app. A header of the protocol that is malformed or
// repeated, in whatever spelling, and headers over the limit are an error for the caller.
func ReadRequest(h Headers, r *Request, app *endpoint.Header) *endpoint.Error {
	if len(h) == 0 {
		return nil
	}
	if n := Size(h); n > endpoint.MaxHeaderBytes {
		return fault(endpoint.ReasonHeaderTooLarge, fmt.Sprintf("headers of %d bytes, at most %d are taken", n, endpoint.MaxHeaderBytes))
	}
	if n := Lines(h); n > endpoint.MaxHeaderLines {
		return fault(endpoint.ReasonHeaderTooLarge, fmt.Sprintf("%d headers, at most %d are taken", n, endpoint.MaxHeaderLines))
	}
	var room [16]string
	var seen [len(requestHeaders)]bool
	trace, traces := "", 0
	for _, name := range names(room[:0], h, all) {
		values := h[name]
		if !reserved(name) {
			for _, v := range values {
				app.Add(name, v)
			}
			if strings.EqualFold(name, TraceParent) && len(values) > 0 {
				trace, traces = values[0], traces+len(values)
			}
			continue
		}
		i := index(requestHeaders[:], name)
		if i < 0 || len(values) == 0 {
			continue
		}
		if len(values) > 1 || seen[i] {
			return fault(endpoint.ReasonMalformedHeader, fmt.Sprintf("header %.80q is repeated", name))
		}
		seen[i] = true
		if !r.setHeader(requestHeaders[i], strings.Trim(values[0], " \t")) {
			return fault(endpoint.ReasonMalformedHeader, fmt.Sprintf("header %.80q: can't read %.80q", name, values[0]))
		}
	}
	if traces == 1 && ValidTrace(trace) { // as W3C has it: a bad or repeated one is no trace
		r.Trace = trace
	}
	if r.Size > 0 {
		r.Encoding = takeEncoding(app)
	}
	return nil
}

func fault(reason, msg string) *endpoint.Error {
	return endpoint.InvalidArgument.New(msg).WithReason(reason).WithOutcome(endpoint.NotExecuted)
}

// reserved tells the headers that no handler sees. Accept and the like are not the application's, but harmless: a handler
// may read them.
func reserved(name string) bool {
	return len(name) >= 4 && strings.EqualFold(name[:4], "rpc-") || len(name) >= 5 && strings.EqualFold(name[:5], "nats-") ||
		strings.EqualFold(name, ContentType) || strings.EqualFold(name, "Status") || strings.EqualFold(name, "Description")
}

// setHeader takes one of requestHeaders.
func (r *Request) setHeader(name, v string) (ok bool) {
	switch name {
	case Timeout:
		r.Timeout, r.HasTimeout = ParseTimeout(v)
		return r.HasTimeout
	case Sent:
		r.Sent, r.HasSent = parseSent(v)
		return r.HasSent
	case ContentType:
		if v != "" { // else it says nothing
			r.MediaType = v
		}
	case Ack:
		r.Ack = v == "1"
		return r.Ack
	case Tell: // of what else may be told some day, nothing is known here
		r.Tell = v == "instance"
	case Attempt:
		n, err := strconv.ParseUint(v, 10, 31)
		r.Attempt = int(n)
		return err == nil
	case Stream:
		r.Stream = v
		return v != ""
	case Window:
		var ok bool
		r.Window, ok = ParseGrant(v)
		return ok && r.Window.within(Grant{MaxAhead, MaxAheadBytes})
	case SizeHeader:
		r.Size, ok = parseSize(v, 10)
		return ok
	case MaxReply:
		r.MaxReply, r.TakesS2, ok = parseMaxReply(v)
		return ok
	case Heartbeat:
		var ok bool
		r.Heartbeat, ok = ParseTimeout(v)
		r.Heartbeat = r.Heartbeat.Truncate(time.Millisecond) // as it is written
		return ok && r.Heartbeat >= MinHeartbeat && r.Heartbeat <= MaxHeartbeat
	}
	return true
}

// WriteRequest adds the header twins of r to h. JSON is named, too: without a token that can be read, a request that names no
// type is a foreign one.
func WriteRequest(h Headers, r *Request) {
	if r.HasTimeout {
		h[Timeout] = []string{string(AppendTimeout(nil, r.Timeout))}
	}
	if r.HasSent && r.Sent >= 0 && r.Sent < maxSent {
		h[Sent] = []string{strconv.FormatInt(r.Sent, 10)}
	}
	if r.MediaType != "" {
		h[ContentType] = []string{r.MediaType}
	}
	if r.Ack {
		h[Ack] = []string{"1"}
	}
	if r.Tell {
		h[Tell] = []string{"instance"}
	}
	if ValidTrace(r.Trace) {
		h[TraceParent] = []string{r.Trace}
	}
	if r.MaxReply > 0 {
		h[MaxReply] = []string{maxReply(r)}
	}
	WriteRest(h, r)
}

// WriteRest adds what has no place in a token.
func WriteRest(h Headers, r *Request) {
	if r.Attempt > 0 {
		h[Attempt] = []string{strconv.Itoa(r.Attempt)}
	}
	if r.Stream != "" {
		h[Stream] = []string{r.Stream}
	}
	if r.Window != (Grant{}) {
		h[Window] = []string{r.Window.String()}
	}
	if r.Heartbeat > 0 {
		h[Heartbeat] = []string{string(AppendTimeout(nil, r.Heartbeat))}
	}
	if r.Size > 0 {
		writeSize(h, r.Size, r.Encoding)
	}
}

// WriteApp adds application headers to h. A traceparent gives way to the one that h has: two are none.
func WriteApp(h Headers, app *endpoint.Header) {
	traced := len(h[TraceParent]) > 0
	for name, v := range app.All() {
		if traced && strings.EqualFold(name, TraceParent) {
			continue
		}
		h[name] = append(h[name], v)
	}
}
