package httpbridge

import (
	"io"
	"net/http"
	"time"
)

// foreignBody is the body that another protocol reads. Its errors are the bridge's.
type foreignBody struct {
	x     *exchange
	v     *visit
	up    *uplink // of a stream of messages, which are read beside the answer; nil for one message
	fault error
}

func (b *foreignBody) Read(p []byte) (n int, err error) {
	from := io.Reader(b.x.r.Body)
	if b.up != nil {
		from = b.up
	}
	err = b.v.life.read(func() (err error) {
		n, err = from.Read(p)
		return err
	})
	switch {
	case err == io.EOF: //nolint:errorlint // itself
		if b.x.unread = false; b.up != nil {
			b.up.ended.Store(true)
		}
	case err != nil && (b.up == nil || !b.up.stopped()):
		b.fault = b.x.attributed(b.x.readFault(b.v.bounded, err))
		err = b.fault
	}
	return n, err
}

// Close leaves the rest to net/http.
func (b *foreignBody) Close() error { return nil }

// foreignWriter bounds each write of another protocol.
type foreignWriter struct {
	http.ResponseWriter

	patience time.Duration
}

func (w *foreignWriter) Write(p []byte) (int, error) {
	w.until(time.Now().Add(w.patience))
	return w.ResponseWriter.Write(p)
}

// Flush writes what is there. The bound must not stand when nothing is written: HTTP/2 would end the stream by it.
func (w *foreignWriter) Flush() {
	w.until(time.Now().Add(w.patience))
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	w.until(time.Time{})
}

func (w *foreignWriter) until(t time.Time) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}

func (w *foreignWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
