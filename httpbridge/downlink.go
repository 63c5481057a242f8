package httpbridge

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// format writes a stream in one of the protocols. Its methods are called one at a time. Each writes to the
// http.ResponseWriter, which buffers until the downlink flushes.
type format interface {
	head()                                      // sets headers
	check(p *codec.Payload) error               // an *endpoint.Error for what it can't express
	item(p *codec.Payload) error                // writes one
	pulse() error                               // writes what says nothing
	end(e *endpoint.Error, t http.Header) error // writes the last words: the error, nil for success, and metadata
	inBand() bool                               // errors stand in the stream even if nothing was sent yet
}

// downlink is the answer of a stream. Its headers leave with the first item, with the end, or when nothing came for a
// heartbeat: until then an error has a status of its own.
//
//	new --item, end, pulse--> begun --end--> ended      lost: the client took no more, nothing is written after that
type downlink struct {
	x      *exchange
	format format
	rc     *http.ResponseController
	abort  context.CancelCauseFunc // ends the call
	stream *stream                 // nil before it runs

	since atomic.Int64 // when the write under way began, 0 if there is none; see clock
	last  atomic.Int64 // when something was sent last

	mu    sync.Mutex
	begun bool
	ended bool
	bare  bool  // begun before the reply's headers were known
	lost  error // why nothing can be written any more
}

// open makes the answer of a stream; it fails if what is below can't stream.
func (x *exchange) open(f format) (*downlink, error) {
	if !flushes(x.w) {
		return nil, endpoint.Internal.Errorf("the %T can't flush, so no stream gets through", x.w)
	}
	d := &downlink{x: x, format: f, rc: http.NewResponseController(x.w)}
	d.last.Store(x.start.UnixNano())
	return d, nil
}

// flushes looks where http.ResponseController would.
func flushes(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// waits reports whether silence is right: nothing is said to an HTTP/1.1 client that is still sending, which may not listen.
func (d *downlink) waits() bool {
	return d.stream.up != nil && d.x.r.ProtoMajor < 2 && !d.stream.up.ended.Load()
}

// item sends one item, and everything that was held back.
func (d *downlink) item(p *codec.Payload) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost != nil {
		return d.gone()
	}
	if err := d.format.check(p); err != nil {
		return err
	}
	d.begin(true)
	d.writing()
	return d.written(d.format.item(p))
}

// pulse says that the stream is alive.
func (d *downlink) pulse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost != nil || d.ended {
		return
	}
	d.begin(false)
	d.writing()
	if err := d.written(d.format.pulse()); err != nil {
		d.abort(err)
	}
}

// end sends the last words. Nothing is written after them.
func (d *downlink) end(e *endpoint.Error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.lost != nil {
		return d.gone()
	}
	d.ended = true
	d.begin(true)
	d.hurry() // the clock has stopped, or never ran
	d.writing()
	return d.written(d.format.end(e, d.trailer()))
}

// begin sets the headers, with those of the reply if they are known (lock held).
func (d *downlink) begin(known bool) {
	if d.begun {
		return
	}
	d.begun = true
	x, s := d.x, d.stream
	h := x.w.Header()
	if known && s != nil {
		x.copyOut(s.metadata(), "")
	}
	d.bare = !known
	d.format.head()
	h.Set("X-Accel-Buffering", "no") // nginx
	rest := x.unread
	if s != nil && s.up != nil {
		rest = !s.up.whole()
	}
	x.parting(rest)
	_ = d.rc.SetWriteDeadline(time.Time{}) // the server's is for whole replies; the clock watches each write
	x.w.WriteHeader(http.StatusOK)
}

// hurry bounds what is written from now on.
func (d *downlink) hurry() { _ = d.rc.SetWriteDeadline(time.Now().Add(d.x.timeouts.Write)) }

// trailer is the metadata for the end (lock held).
func (d *downlink) trailer() http.Header {
	s := d.stream
	if s == nil || !d.x.tells {
		return nil
	}
	t := http.Header{}
	if d.bare {
		d.x.pass(&s.head, t)
	}
	d.x.pass(&s.trailer, t)
	return t
}

// writing and written stand around what a format writes, and flush it (lock held).
func (d *downlink) writing() {
	now := time.Now().UnixNano()
	d.since.Store(now)
	d.last.Store(now)
}

func (d *downlink) written(err error) error {
	if err == nil {
		err = d.rc.Flush()
	}
	d.since.Store(0)
	d.lost = err
	return d.gone()
}

// gone is the error of a client that takes no more (lock held).
func (d *downlink) gone() error {
	if d.lost == nil {
		return nil
	}
	return endpoint.Canceled.Wrap(d.lost, "the client left, or does not read")
}

// talks reports whether what is left to be said is said in the stream. If not, the answer is somebody else's from now on.
func (d *downlink) talks() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun || d.format.inBand() {
		return true
	}
	d.ended = true
	return false
}

// abandon keeps a pulse from writing to an answer that is over.
func (d *downlink) abandon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
}
