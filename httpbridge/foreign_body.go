package httpbridge

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// foreignBody is the body that another protocol reads, maybe in a goroutine that outlives its call. Its errors are the bridge's.
type foreignBody struct {
	x *exchange
	v *visit

	mu    sync.Mutex
	over  bool
	fault error
	busy  sync.Mutex // held while it is read
}

func (b *foreignBody) Read(p []byte) (n int, err error) {
	b.busy.Lock()
	defer b.busy.Unlock()
	if b.ended() {
		return 0, http.ErrBodyReadAfterClose
	}
	err = b.v.life.read(func() (err error) {
		n, err = b.x.r.Body.Read(p)
		return err
	})
	switch {
	case err == io.EOF: //nolint:errorlint // itself
		b.x.unread = false
	case err != nil && !b.ended():
		b.fault = b.x.attributed(b.x.readFault(b.v.bounded, err))
		err = b.fault
	}
	return n, err
}

// Close leaves the rest to net/http.
func (b *foreignBody) Close() error { return nil }

func (b *foreignBody) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over
}

// end interrupts who reads, and waits until nobody does.
func (b *foreignBody) end() {
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	if !b.busy.TryLock() {
		b.x.readUntil(past())
		b.busy.Lock()
	}
	b.busy.Unlock()
}

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
