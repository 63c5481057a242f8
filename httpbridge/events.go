package httpbridge

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// eventsFormat writes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
//
//	id: 1
//	data: {"n":2}
//	                         a blank line ends each event
//	:                        a comment, when nothing came for a heartbeat
//
//	event: error
//	data: {"code":"internal"}
//
//	event: end               the last one, always: what has none was cut off
//	data: {}
type eventsFormat struct {
	x    *exchange
	n    int
	line [32]byte
}

func (f *eventsFormat) head() {
	h := f.x.w.Header()
	h.Set("Content-Type", eventsType)
	unstored(h)
}

// unstored keeps a stream out of caches, and whole on the way.
func unstored(h http.Header) {
	h.Set("Cache-Control", "no-store, no-transform")
	h.Add("Vary", "Accept")
}

func (*eventsFormat) inBand() bool { return false }

// check lets text pass, JSON most of all.
func (*eventsFormat) check(p *codec.Payload) error {
	if p.MediaType == jsonType || p.MediaType == "" {
		return nil
	}
	media := codec.MediaType(p.MediaType)
	if isJSON(media) || strings.HasPrefix(media, "text/") && utf8.Valid(p.Data) {
		return nil
	}
	return endpoint.Internal.Errorf("an item is of type %.80q, and events are text", p.MediaType)
}

func isJSON(media string) bool { return media == jsonType || strings.HasSuffix(media, "+json") }

func (f *eventsFormat) item(p *codec.Payload) error {
	f.n++
	head := strconv.AppendInt(append(f.line[:0], "id: "...), int64(f.n), 10)
	if _, err := f.x.w.Write(append(head, '\n')); err != nil {
		return err
	}
	return f.data(p.Data)
}

// data ends an event. A line of data can't have its end in it: there is one for each.
func (f *eventsFormat) data(text []byte) error {
	for more := true; more; {
		line := text
		if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
			line = text[:i]
			if text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
			text = text[i+1:]
		} else {
			more = false
		}
		if err := f.put("data: ", line, "\n"); err != nil {
			return err
		}
	}
	_, err := io.WriteString(f.x.w, "\n")
	return err
}

func (f *eventsFormat) put(before string, text []byte, after string) error {
	_, err := io.WriteString(f.x.w, before)
	if err == nil {
		_, err = f.x.w.Write(text)
	}
	if err == nil {
		_, err = io.WriteString(f.x.w, after)
	}
	return err
}

func (f *eventsFormat) pulse() error {
	_, err := io.WriteString(f.x.w, ":\n\n")
	return err
}

func (f *eventsFormat) end(e *endpoint.Error, t http.Header) error {
	if e != nil {
		if err := f.put("event: error\ndata: ", marshal(e), "\n\n"); err != nil {
			return err
		}
	}
	return f.put("event: end\ndata: ", marshal(endStream{Metadata: t}), "\n\n")
}
