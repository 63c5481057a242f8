package httpbridge

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// grant is how much is set aside for a body on its sender's word alone.
const grant = 64 << 10

// read takes the whole body in, decompressed. Reading to the end is what lets net/http notice that a client left
// (https://go.dev/issue/23262).
func (x *exchange) read(bounded context.Context, life *life) ([]byte, error) {
	gzipped, err := encoding(x.r.Header["Content-Encoding"])
	if err != nil {
		x.w.Header().Set("Accept-Encoding", "gzip")
		return nil, err
	}
	if x.r.ContentLength > int64(x.limits.Body) {
		return nil, x.tooLarge()
	}
	var body []byte
	if x.unread {
		x.readBefore(bounded)
		err := life.read(func() (err error) {
			body, err = x.take()
			return err
		})
		if err == nil {
			err = bounded.Err()
		}
		if err != nil {
			x.spent()
			return nil, x.readFault(bounded, err)
		}
		x.unread = false
	}
	if !gzipped || len(body) == 0 { // an empty message isn't compressed, says Connect
		return body, nil
	}
	return inflate(body, x.limits.Body)
}

// take reads until the body ends or its time is up, in memory that fits if it is as long as it says.
func (x *exchange) take() ([]byte, error) {
	body := make([]byte, 0, min(max(x.r.ContentLength, 0), grant)+1) // one more, to find the end
	from := http.MaxBytesReader(x.w, x.r.Body, int64(x.limits.Body))
	for {
		n, err := from.Read(body[len(body):cap(body)])
		switch body = body[:len(body)+n]; {
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, err
		case len(body) == cap(body):
			body = slices.Grow(body, max(len(body), bytes.MinRead))
		}
	}
}

// readUntil bounds what is read from here on; net/http takes the bound off with the request's end. Not every
// ResponseWriter can; its server has a bound of its own then.
func (x *exchange) readUntil(t time.Time) { _ = http.NewResponseController(x.w).SetReadDeadline(t) }

// readBefore bounds what is read by a context's deadline, if that is sooner than what is bounded already.
func (x *exchange) readBefore(bounded context.Context) {
	if d, ok := bounded.Deadline(); ok && d.Before(x.start.Add(x.timeouts.Body)) {
		x.readUntil(d)
	}
}

// patience is what an answer waits for a body that nobody wants.
const patience = 250 * time.Millisecond

// answering bounds what is written from here on. What is left of the body is bounded with it: net/http reads that, up to
// 256 KiB, before it sends a short answer, to keep the connection.
func (x *exchange) answering() {
	if x.unread {
		x.readUntil(time.Now().Add(patience))
	}
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.timeouts.Write)) // as in readUntil
}

// spent gives up a connection that the rest of a body is in the way of. HTTP/2 has streams for that, and would close them all.
func (x *exchange) spent() {
	if x.r.ProtoMajor < 2 {
		x.w.Header().Set("Connection", "close")
	}
}

// parting closes a connection that is of no more use, such as one with the rest of a body in it that the answer did not wait for.
func (x *exchange) parting(rest bool) {
	switch {
	case x.gate.draining():
		x.w.Header().Set("Connection", "close")
	case rest:
		x.spent()
	}
}

func (x *exchange) readFault(ctx context.Context, err error) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return x.tooLarge()
	}
	end, bounded := ctx.Deadline()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && bounded && !time.Now().Before(end): // for net/http the client has left
		return endpoint.DeadlineExceeded.Wrap(context.DeadlineExceeded, "the deadline passed").WithOutcome(endpoint.NotSent)
	case errors.Is(ctx.Err(), context.DeadlineExceeded), x.life.Err() != nil:
		return endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, endpoint.DeadlineExceeded.New("the body did not arrive in time"))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled):
		return endpoint.Canceled.Wrap(err, "the client left").WithOutcome(endpoint.NotSent)
	}
	return endpoint.InvalidArgument.Wrap(err, "the body can't be read").WithOutcome(endpoint.NotSent)
}

func (x *exchange) tooLarge() error {
	x.spent()
	return oversize("the body", x.limits.Body)
}

// encoding reads Content-Encoding, or Connect-Content-Encoding.
func encoding(values []string) (gzipped bool, err error) {
	if len(values) == 0 {
		return false, nil
	}
	switch name := strings.ToLower(strings.TrimSpace(strings.Join(values, ","))); name {
	case "", "identity":
		return false, nil
	case "gzip":
		return true, nil
	default:
		return false, endpoint.Unimplemented.Errorf("unknown content encoding %.40q: supported are gzip and identity", name).
			WithOutcome(endpoint.NotSent)
	}
}

var (
	readers sync.Pool // of *gzip.Reader
	writers = sync.Pool{New: func() any { w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed); return w }}
)

// inflate takes gzip off, and stops when it gets more than the limit.
func inflate(data []byte, limit int) ([]byte, error) {
	z, _ := readers.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	defer readers.Put(z)
	var buf bytes.Buffer
	err := z.Reset(bytes.NewReader(data))
	if err == nil {
		_, err = buf.ReadFrom(io.LimitReader(z, int64(limit)+1))
	}
	switch {
	case err != nil:
		return nil, endpoint.InvalidArgument.Wrap(err, "what says it is gzip is not").WithOutcome(endpoint.NotSent)
	case buf.Len() > limit:
		return nil, oversize("a decompressed message", limit)
	}
	return buf.Bytes(), nil
}

func oversize(what string, limit int) *endpoint.Error {
	return endpoint.ResourceExhausted.Errorf("%s has more than %d bytes", what, limit).
		WithReason(endpoint.ReasonRequestTooLarge).WithOutcome(endpoint.NotSent)
}

// minGzip is what must be there for compression to pay.
const minGzip = 1024

// write sends a reply, compressed where the client takes it and it pays.
func (x *exchange) write(mediaType string, data []byte) {
	h := x.w.Header()
	x.set("Content-Type", mediaType)
	if compressible(mediaType) {
		if h["Vary"] == nil {
			x.set("Vary", "Accept-Encoding")
		} else {
			h.Add("Vary", "Accept-Encoding")
		}
		if len(data) >= minGzip && acceptsGzip(x.r.Header["Accept-Encoding"]) {
			h.Set("Content-Encoding", "gzip")
			data = deflate(data)
		}
	}
	x.set("Content-Length", strconv.Itoa(len(data)))
	x.parting(x.unread && x.duplex)
	x.answering()
	_, _ = x.w.Write(data) // nobody is left to be told
}

func deflate(data []byte) []byte {
	var buf bytes.Buffer
	z := writers.Get().(*gzip.Writer)
	defer writers.Put(z)
	z.Reset(&buf)
	_, _ = z.Write(data) // a bytes.Buffer takes everything
	_ = z.Close()
	return buf.Bytes()
}

// compressible names what is worth the time; pictures and archives are not.
func compressible(mediaType string) bool {
	switch mediaType {
	case jsonType, "application/proto", "application/cbor", "application/xml":
		return true
	}
	return strings.HasSuffix(mediaType, "+json") || strings.HasPrefix(mediaType, "text/")
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3). Without the header nothing is compressed.
func acceptsGzip(lines []string) bool {
	star := false
	for part := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			return qualityOf(params) > 0
		case "*":
			star = qualityOf(params) > 0
		}
	}
	return star
}

func qualityOf(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return 0
			}
			return q
		}
	}
	return 1
}
