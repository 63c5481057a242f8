package httpbridge

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// linesFormat writes JSON, one object a line (https://github.com/ndjson/ndjson-spec, https://jsonlines.org):
//
//	{"result":{"n":2}}
//	{"error":{"code":"internal"}}     the last one, if it failed
//
// A stream without an error that was cut off has no end that HTTP knows of: the last chunk is missing.
type linesFormat struct {
	x     *exchange
	media string
}

func (f *linesFormat) head() {
	h := f.x.w.Header()
	h.Set("Content-Type", f.media)
	unstored(h)
}

func (*linesFormat) inBand() bool { return false }

func (*linesFormat) pulse() error { return nil }

func (*linesFormat) check(p *codec.Payload) error {
	if p.MediaType == jsonType || p.MediaType == "" || isJSON(codec.MediaType(p.MediaType)) {
		return nil
	}
	return endpoint.Internal.Errorf("an item is of type %.80q, and lines are JSON", p.MediaType)
}

func (f *linesFormat) item(p *codec.Payload) error { return f.put(`{"result":`, oneLine(p.Data)) }

func (f *linesFormat) put(head string, text []byte) error {
	_, err := io.WriteString(f.x.w, head)
	if err == nil {
		_, err = f.x.w.Write(text)
	}
	if err == nil {
		_, err = io.WriteString(f.x.w, "}\n")
	}
	return err
}

func (f *linesFormat) end(e *endpoint.Error, _ http.Header) error {
	if e == nil {
		return nil
	}
	return f.put(`{"error":`, marshal(e))
}

// oneLine takes line ends out of JSON, where they can only stand between its parts.
func oneLine(text []byte) []byte {
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 && len(text) > 0 {
		return text
	}
	if len(text) == 0 {
		return []byte("null")
	}
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, text)
}

// jsonLines reads a request of many messages, one on each line. Blank lines don't count.
type jsonLines struct {
	from  *bufio.Reader
	limit int
}

// lined makes the reader of such a request.
func (x *exchange) lined() (*uplink, error) {
	gzipped, err := encoding(x.r.Header["Content-Encoding"])
	if err != nil {
		return nil, err
	}
	u := &uplink{x: x}
	l := &jsonLines{from: bufio.NewReader(u), limit: x.limits.Body}
	if !gzipped {
		u.next = l.next
		return u, nil
	}
	u.next = func() ([]byte, error) { // the head of gzip is read when the call wants its first message, not before
		u.next = l.next
		z, err := gzip.NewReader(l.from)
		if err != nil {
			return nil, endpoint.InvalidArgument.Wrap(err, "what says it is gzip is not")
		}
		l.from = bufio.NewReader(z)
		return l.next()
	}
	return u, nil
}

// next returns a line in memory of its own, io.EOF at the end of the body.
func (l *jsonLines) next() ([]byte, error) {
	var line []byte
	for {
		part, err := l.from.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > l.limit:
			return nil, oversize("a line", l.limit).WithOutcome(endpoint.MaybeExecuted)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && err != io.EOF:
			return nil, err
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
		line = line[:0]
	}
}
