package httpbridge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// stuckWriter is the answer to a client that takes nothing: what is flushed waits for the write deadline, for good without one.
type stuckWriter struct {
	*httptest.ResponseRecorder

	mu    sync.Mutex
	until time.Time
	news  chan struct{}
}

func (w *stuckWriter) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = t
	select {
	case w.news <- struct{}{}:
	default:
	}
	return nil
}

func (w *stuckWriter) FlushError() error {
	for {
		w.mu.Lock()
		until := w.until
		w.mu.Unlock()
		var passes <-chan time.Time
		if !until.IsZero() {
			passes = time.After(time.Until(until))
		}
		select {
		case <-passes:
			return os.ErrDeadlineExceeded
		case <-w.news:
		}
	}
}

// The last words of a stream are bounded in time as all others are, also where it never began: nobody holds the bridge's room by
// reading nothing.
func TestStuck_lastWords(t *testing.T) {
	for name, body := range map[string]string{"refused": "", "over": enveloped(frame{0, `{"n":0}`})} {
		synctest.Test(t, func(t *testing.T) {
			m := endpoint.NewMux()
			serve(t, m, "svc.count", endpoint.NewServerStream(count))
			b := httpbridge.New(m, httpbridge.Expose("svc.count"), httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
				if name == "refused" {
					return nil, endpoint.Unauthenticated.New("who are you?")
				}
				return r.Context(), nil
			}))
			r := httptest.NewRequest(http.MethodPost, "/svc/count", strings.NewReader(body))
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
			r.Header.Set("Content-Type", "application/connect+json")
			w := &stuckWriter{ResponseRecorder: httptest.NewRecorder(), news: make(chan struct{}, 1)}
			start := time.Now()
			b.ServeHTTP(w, r)
			assert.Equal(t, time.Since(start), 30*time.Second, name)
			assert.NoError(t, b.Drain(t.Context()))
		})
	}
}
