package wire

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// The values of Rpc-Stream.
const (
	StreamServer = "server"
	StreamClient = "client"
	StreamBidi   = "bidi"
)

// The verbs of control frames in streams, besides cancel, beat and unknown.
const (
	VerbWindow = "window" // credit
	VerbEnd    = "end"    // the caller's half is complete
)

// TrailerPrefix is what the names of trailers begin with.
const TrailerPrefix = "Rpc-Trailer-"

// What a heartbeat may be, and what it is unless the caller says so.
const (
	MinHeartbeat     = 5 * time.Second
	DefaultHeartbeat = 15 * time.Second
	MaxHeartbeat     = time.Minute
)

// What a sender may be allowed to be ahead of what was consumed. More is no credit but an attack, or a fault.
const (
	MaxAhead      = 1 << 16
	MaxAheadBytes = 64 << 20
)

// Grant is credit: how many items, and bytes of them, may have been sent since the stream began. It is a total, so that one
// which is lost is made good by the next.
type Grant struct{ Messages, Bytes uint64 }

// DefaultGrant is what a sender has from the beginning, unless a request says otherwise.
func DefaultGrant() Grant { return Grant{Messages: 64, Bytes: 256 << 10} }

// maxTotal keeps sums of two totals from overflowing.
const maxTotal = 1 << 62

// String writes the form that stands in a header: messages;bytes.
func (g Grant) String() string {
	b := strconv.AppendUint(make([]byte, 0, 32), g.Messages, 10)
	return string(strconv.AppendUint(append(b, ';'), g.Bytes, 10))
}

func (g Grant) within(most Grant) bool { return g.Messages <= most.Messages && g.Bytes <= most.Bytes }

// ParseGrant reads what String wrote.
func ParseGrant(s string) (g Grant, ok bool) {
	messages, bytes, found := strings.Cut(s, ";")
	m, ok1 := parseTotal(messages)
	b, ok2 := parseTotal(bytes)
	if !found || !ok1 || !ok2 {
		return Grant{}, false
	}
	return Grant{m, b}, true
}

// parseTotal reads a number of items or bytes: digits alone.
func parseTotal(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64) // takes no sign
	return n, err == nil && n <= maxTotal
}

// FrameKind is what a message of a stream is.
type FrameKind uint8

// The kinds of frames.
const (
	BadFrame     FrameKind = iota // can't be read
	IgnoredFrame                  // a verb that is not known, or nothing at all: what frees the mapping of an import
	OpenFrame                     // the stream is admitted; its Reply is the control subject
	ItemFrame
	EndFrame     // the service's end, or an error reply, which is one
	HalfFrame    // the caller's half is complete
	WindowFrame  // credit
	BeatFrame    // the peer lives
	CancelFrame  // the caller left
	UnknownFrame // the call is not here
	PingFrame    // is it?
	ReplyFrame   // a success without any of this: the service knows no streams
)

// Frame is one message of a stream.
type Frame struct {
	Kind      FrameKind
	Instance  string          // of an open
	Size      uint64          // of an open: the reply is so long, and follows in chunks; 0: it is none
	Encoding  string          // of them
	Seq       uint64          // of an item; of a beat, that of what was sent last
	Count     uint64          // of an end: how many items there were
	Counted   bool            // it says so; an error reply does not
	Grant     Grant           // of a window, or a beat
	Granted   bool            // the beat has one
	MediaType string          // of an item, or what an open announces; "" means the request's
	Err       *endpoint.Error // of an end; nil if all went well
}

// WriteOpen makes the headers of the first message of a stream.
func WriteOpen(instance string) Headers { return Headers{Open: {instance}} }

// WriteItem makes the headers of an item. An empty media type is the request's.
func WriteItem(seq uint64, mediaType string) Headers {
	h := Headers{Seq: {strconv.FormatUint(seq, 10)}}
	if mediaType != "" {
		h[ContentType] = []string{mediaType}
	}
	return h
}

// WriteWindow makes the headers of credit.
func WriteWindow(g Grant) Headers { return Headers{Ctl: {VerbWindow}, Window: {g.String()}} }

// WriteBeat makes the headers of a beat, with the credit granted so far if there is any.
func WriteBeat(last uint64, g Grant) Headers {
	h := Headers{Ctl: {VerbBeat}, Seq: {strconv.FormatUint(last, 10)}}
	if g != (Grant{}) {
		h[Window] = []string{g.String()}
	}
	return h
}

// WriteHalf makes the headers of the end of the caller's half.
func WriteHalf(count uint64) Headers {
	return Headers{Ctl: {VerbEnd}, End: {strconv.FormatUint(count, 10)}}
}

// maxDetails is the longest value of Rpc-Details.
const maxDetails = 64 << 10

// WriteEnd adds the headers of the service's end to h: the body is empty, so that clients which know no streams see the end in
// that. An error must be fit to cross, see WriteError; what its line can't say stands in Rpc-Details.
func WriteEnd(h Headers, count uint64, e *endpoint.Error, trailer *endpoint.Header) error {
	if e != nil {
		body, err := WriteError(h, e)
		if err != nil {
			return err
		}
		delete(h, ContentType) // there is no body
		if len(e.Details) > 0 || h[ServiceError][0] != e.Message && e.Message != "" {
			if v := base64.RawStdEncoding.EncodeToString(body); len(v) <= maxDetails {
				h[Details] = []string{v}
			}
		}
	}
	h[End] = []string{strconv.FormatUint(count, 10)}
	WriteTrailer(h, trailer)
	return nil
}

// WriteTrailer adds the trailers to the headers of a reply or an end.
func WriteTrailer(h Headers, trailer *endpoint.Header) {
	for name, v := range trailer.All() {
		h[TrailerPrefix+name] = append(h[TrailerPrefix+name], v)
	}
}
