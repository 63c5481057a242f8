package wire

import (
	"encoding/base64"
	"strings"

	"postbus.example/endpoint"
)

// ReadFrame reads a message of a stream. What is the application's goes to app, and trailers to trailer.
func ReadFrame(h Headers, body []byte, app, trailer *endpoint.Header) Frame {
	if v := h[Seq]; len(h) == 1 && len(v) == 1 { // most frames
		n, ok := parseTotal(v[0])
		return Frame{Kind: sound(ItemFrame, ok && n > 0), Seq: n}
	}
	if len(h) == 0 {
		if len(body) == 0 {
			return Frame{Kind: IgnoredFrame}
		}
		return Frame{Kind: ReplyFrame}
	}
	if verb, ok := fold(h, Ctl); ok {
		return readControl(h, verb)
	}
	if v, ok := fold(h, Open); ok {
		return readOpen(h, v, body, app)
	}
	if v, ok := fold(h, Seq); ok {
		r := ReadReply(h, nil, app)
		n, ok := parseTotal(v)
		return Frame{Kind: sound(ItemFrame, ok && n > 0 && r.Err == nil), Seq: n, MediaType: r.MediaType}
	}
	return readEnd(h, body, app, trailer)
}

// OfStream reports whether a message that should be a reply is one of a stream's.
func OfStream(h Headers) bool {
	for _, name := range [...]string{Seq, End, Open} {
		if _, ok := fold(h, name); ok {
			return true
		}
	}
	return false
}

// sound returns the kind of what can be read.
func sound(k FrameKind, ok bool) FrameKind {
	if !ok {
		return BadFrame
	}
	return k
}

func readControl(h Headers, verb string) Frame {
	number := func(name string) (uint64, bool) {
		v, _ := fold(h, name)
		return parseTotal(v)
	}
	grant, granted := fold(h, Window)
	switch verb {
	case VerbWindow:
		g, ok := ParseGrant(grant)
		return Frame{Kind: sound(WindowFrame, ok), Grant: g, Granted: ok}
	case VerbBeat:
		n, ok := number(Seq)
		f := Frame{Kind: sound(BeatFrame, ok), Seq: n}
		if granted {
			if f.Grant, f.Granted = ParseGrant(grant); !f.Granted {
				f.Kind = BadFrame
			}
		}
		return f
	case VerbEnd:
		n, ok := number(End)
		return Frame{Kind: sound(HalfFrame, ok), Count: n, Counted: ok}
	case VerbCancel:
		return Frame{Kind: CancelFrame}
	case VerbUnknown:
		return Frame{Kind: UnknownFrame}
	case VerbPing:
		return Frame{Kind: PingFrame}
	}
	return Frame{Kind: IgnoredFrame}
}

// readEnd reads what ends a stream: the service's end, any error reply, or a reply that is no stream's.
func readEnd(h Headers, body []byte, app, trailer *endpoint.Header) Frame {
	v, ended := fold(h, End)
	if d, ok := fold(h, Details); ok && ended && len(d) <= maxDetails {
		if details, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(d, "=")); err == nil {
			body = details
		}
	}
	r := ReadReply(h, body, app)
	if !ended {
		if r.Err == nil {
			return Frame{Kind: ReplyFrame, MediaType: r.MediaType}
		}
		return Frame{Kind: EndFrame, Err: r.Err}
	}
	f := Frame{Kind: EndFrame, Err: r.Err}
	f.Count, f.Counted = parseTotal(v)
	if !f.Counted {
		f.Kind = BadFrame
	}
	if err := ReadTrailer(h, trailer); err != nil && f.Err == nil {
		f.Err = err
	}
	return f
}

// ReadTrailer takes the trailers of a reply or an end. If they are more than one message may have headers it takes none, which is
// an error: a success is not whole without them.
func ReadTrailer(h Headers, trailer *endpoint.Header) *endpoint.Error {
	if !readTrailer(h, trailer) {
		return endpoint.Internal.New("the trailers are more than are taken").WithReason(endpoint.ReasonHeaderTooLarge).WithOutcome(endpoint.Executed)
	}
	return nil
}

func readTrailer(h Headers, trailer *endpoint.Header) bool {
	var room [8]string
	found := names(room[:0], h, func(name string) bool {
		return len(name) > len(TrailerPrefix) && strings.EqualFold(name[:len(TrailerPrefix)], TrailerPrefix)
	})
	size, lines := 0, 0
	for _, name := range found {
		for _, v := range h[name] {
			size += len(name) - len(TrailerPrefix) + len(v) + 4
			lines++
		}
	}
	if size > endpoint.MaxHeaderBytes || lines > endpoint.MaxHeaderLines {
		return false
	}
	for _, name := range found {
		for _, v := range h[name] {
			trailer.Add(name[len(TrailerPrefix):], v)
		}
	}
	return true
}
