package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postbus.example/endpoint"
)

// MaxErrorLine is the longest Nats-Service-Error in bytes.
const MaxErrorLine = 512

// WriteError adds the headers of an error reply to h and returns its body. The error must be fit to cross: see
// endpoint.Crossing. Details that no reader would take, with all the rest of the body, are left out.
func WriteError(h Headers, e *endpoint.Error) (body []byte, err error) {
	body, err = e.MarshalJSON()
	if err == nil && !frugal(body) {
		plain := *e
		plain.Details = nil
		body, err = plain.MarshalJSON()
	}
	if err != nil {
		return nil, err
	}
	h[ServiceError] = []string{oneLine(e)}
	h[ServiceCode] = []string{strconv.Itoa(e.Code.Status())}
	h[Code] = []string{e.Code.String()}
	h[ContentType] = []string{JSONType}
	if word(e.Reason()) {
		h[Reason] = []string{e.Reason()}
	}
	if o := e.Outcome(); o == endpoint.NotExecuted || o == endpoint.NotSent {
		h[OutcomeHeader] = []string{endpoint.NotExecuted.String()}
	}
	switch {
	case e.RetryAfter < 0:
		h[RetryAfter] = []string{"no"}
	case e.RetryAfter > 0:
		h[RetryAfter] = []string{string(AppendTimeout(nil, e.RetryAfter))}
	}
	return body, nil
}

// oneLine is the message for people who look at headers: without control characters and other ends of lines, at most
// MaxErrorLine bytes, never empty.
func oneLine(e *endpoint.Error) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(e.Message, "\uFFFD"))
	if len(s) > MaxErrorLine {
		s = strings.ToValidUTF8(s[:MaxErrorLine], "") // a rune cut in two goes
	}
	if s = strings.TrimSpace(s); s == "" {
		return e.Code.String()
	}
	return s
}

// word reports whether s is a machine word or an id: what else a peer puts in such a place is not passed on, since it may
// end in a header, a subject or a label.
func word(s string) bool { return len(s) <= 64 && endpoint.ValidateServiceName(s) == nil }

// Reply is what one reply message says.
type Reply struct {
	Err       *endpoint.Error // nil for success
	MediaType string          // "" means the request's
	Instance  string
}

// replyHeaders are the reserved headers that are understood on a reply, at these indexes. Others are ignored.
var replyHeaders = [...]string{
	atType: ContentType, atInstance: Instance, atCode: Code, atStatus: ServiceCode, atText: ServiceError, atReason: Reason,
	atOutcome: OutcomeHeader, atRetry: RetryAfter,
}

const (
	atType = iota
	atInstance
	atCode
	atStatus
	atText
	atReason
	atOutcome
	atRetry
)

// said is what stands in replyHeaders.
type said [len(replyHeaders)]string

// ReadReply reads the headers and body of a reply. What is not the protocol's own goes to app. Of a repeated header of the
// protocol the first counts: the reply is there, and to refuse it would help nobody. Application headers over the limit of
// a message are not taken: an error stays what it is without them, a success is not whole and becomes internal.
func ReadReply(h Headers, body []byte, app *endpoint.Header) Reply {
	if len(h) == 0 {
		return Reply{}
	}
	if noResponders(h, body) {
		return Reply{Err: endpoint.Unavailable.New("nobody serves " + get(h, "Nats-Subject")).
			WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)}
	}
	var s said
	var from said // the names that s was read from
	size, count := 0, 0
	for name, values := range h {
		if !reserved(name) {
			count += len(values)
			for _, v := range values {
				size += len(name) + len(v) + 4
			}
			continue
		}
		i := index(replyHeaders[:], name)
		if i >= 0 && len(values) > 0 && (from[i] == "" || name < from[i]) { // not by the order of the map
			s[i], from[i] = strings.Trim(values[0], " \t"), name
		}
	}
	r := Reply{MediaType: s[atType]}
	if word(s[atInstance]) {
		r.Instance = s[atInstance]
	}
	if from[atCode] != "" || from[atStatus] != "" || from[atText] != "" {
		r.Err = readError(&s, body)
	}
	switch {
	case size <= endpoint.MaxHeaderBytes && count <= endpoint.MaxHeaderLines:
		var room [16]string
		for _, name := range names(room[:0], h, application) {
			for _, v := range h[name] {
				app.Add(name, v)
			}
		}
	case r.Err == nil:
		r.Err = endpoint.Internal.New(fmt.Sprintf("the reply has %d headers of %d bytes, at most %d of %d are taken",
			count, size, endpoint.MaxHeaderLines, endpoint.MaxHeaderBytes)).
			WithReason(endpoint.ReasonHeaderTooLarge).WithOutcome(endpoint.Executed)
	}
	return r
}

// noResponders tells the broker's own answer from a reply of a service that has a header named Status: it is inline,
// names the subject, and nothing else is there.
func noResponders(h Headers, body []byte) bool {
	if len(body) > 0 || len(h) > 3 || len(h["Status"]) != 1 || h["Status"][0] != "503" {
		return false
	}
	_, described := h["Description"]
	return len(h["Nats-Subject"]) == 1 && (len(h) == 2 || described)
}

func get(h Headers, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func readError(s *said, body []byte) *endpoint.Error {
	e := &endpoint.Error{}
	if s[atCode] == "" { // a service of other make
		e.Code = endpoint.Unknown
		if n, err := strconv.Atoi(s[atStatus]); err == nil {
			e.Code = endpoint.CodeFromStatus(n)
		}
		e.Message = s[atText]
		return e.WithOutcome(endpoint.Executed).AsRemote()
	}
	code, known := endpoint.ParseCode(s[atCode])
	if !known || code == endpoint.OK {
		code = endpoint.Unknown
	}
	if !frugal(body) || json.Unmarshal(body, e) != nil {
		e = &endpoint.Error{} // it may be filled in part
	}
	e.Code = code
	if text := s[atText]; e.Message == "" && text != s[atCode] { // WriteError fills an empty line with the code
		e.Message = text // the header is all we have
	}
	if d, ok := ParseTimeout(s[atRetry]); ok {
		e.RetryAfter = d
	} else if s[atRetry] == "no" {
		e.RetryAfter = -time.Second
	}
	if word(s[atReason]) {
		e = e.WithReason(s[atReason])
	}
	outcome := endpoint.Executed
	if s[atOutcome] == endpoint.NotExecuted.String() {
		outcome = endpoint.NotExecuted
	}
	return e.WithOutcome(outcome).AsRemote()
}

// What an error's JSON may have: members and elements outside of what is in its details, which have three members each,
// and levels.
const (
	maxParts = 3*endpoint.MaxDetails + 16
	maxDepth = 256
)

// frugal reports whether decoding an error's JSON takes memory in proportion: a hostile peer could say in two bytes what
// takes a hundred here.
func frugal(body []byte) bool {
	if !utf8.Valid(body) { // three bytes for each bad one
		return false
	}
	depth, parts, quoted := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		case c == ',' && depth <= 3: // the error, its details, the members of each
			parts++
		}
	}
	return parts < maxParts
}

// IsPubAck reports whether a reply is exactly what JetStream answers to a publish: a stream covers the RPC's subject. That
// the stream could not take the message says as much. Other replies are told apart without decoding.
func IsPubAck(body []byte) bool {
	if len(body) < 20 || len(body) > 1024 || body[0] != '{' ||
		!bytes.Contains(body, []byte(`"stream"`)) || !bytes.Contains(body, []byte(`"seq"`)) {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return false
	}
	var ack struct {
		Stream    string `json:"stream"`
		Seq       uint64 `json:"seq"`
		Domain    string `json:"domain"`
		Duplicate bool   `json:"duplicate"`
		Val       string `json:"val"`
		Batch     string `json:"batch"`
		Count     uint64 `json:"count"`
		Error     struct {
			Code    int `json:"code"`
			ErrCode int `json:"err_code"`
		} `json:"error"`
	}
	for name := range members {
		switch name {
		case "stream", "seq", "domain", "duplicate", "val", "batch", "count", "error":
		default:
			return false
		}
	}
	if members["stream"] == nil || members["seq"] == nil || json.Unmarshal(body, &ack) != nil || ack.Stream == "" {
		return false
	}
	if members["error"] == nil {
		return ack.Seq > 0
	}
	return ack.Seq == 0 && ack.Error.Code >= 400 && ack.Error.ErrCode > 0
}
