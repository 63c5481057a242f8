package httpbridge_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// quiet is the ResponseWriter of a server that costs nothing itself.
type quiet struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *quiet) Header() http.Header              { return w.header }
func (w *quiet) WriteHeader(status int)           { w.status = status }
func (w *quiet) Write(b []byte) (int, error)      { return w.body.Write(b) }
func (w *quiet) SetReadDeadline(time.Time) error  { return nil }
func (w *quiet) SetWriteDeadline(time.Time) error { return nil }

// instant is a transport that asks a context for its deadline and what else ends it, as the bus does, and has the reply.
type instant struct{}

var instantReply any = &codec.Payload{MediaType: "application/json", Data: []byte(`{"sum":3}`)}

func (instant) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(ctx context.Context, _ *endpoint.Call) (any, error) {
		endpoint.Wait(ctx)
		return instantReply, nil
	}
}

// asking returns a function that makes one request. What a server makes for each, the bridge is given again and again.
func asking(t testing.TB, opts ...httpbridge.Option) (ask func(), w *quiet) {
	t.Helper()
	b := httpbridge.New(instant{}, append(opts, httpbridge.Expose("svc.add"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))...)
	text := bytes.NewReader([]byte(`{"a":1,"b":2}`))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: "/svc/add"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "x",
		RemoteAddr: "127.0.0.1:1234", Body: io.NopCloser(text), ContentLength: text.Size(),
		Header: http.Header{"Content-Type": {"application/json"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"test"}},
	}).WithContext(ctx)
	w = &quiet{header: http.Header{}}
	return func() {
		clear(w.header)
		w.body.Reset()
		text.Reset([]byte(`{"a":1,"b":2}`))
		b.ServeHTTP(w, r)
	}, w
}

// TestAllocs holds what the bridge allocates for a request that goes well, beyond what net/http does and the call itself.
func TestAllocs(t *testing.T) {
	ask, w := asking(t)
	ask()
	assert.Equal(t, w.body.String(), `{"sum":3}`)
	assert.Equal(t, w.header, http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"9"}, "Vary": {"Accept-Encoding"}, "X-Content-Type-Options": {"nosniff"},
	})
	got := testing.AllocsPerRun(1000, ask)
	t.Log(got)
	assert.True(t, got <= 12, "allocations within bounds")
}

func BenchmarkHandler(b *testing.B) {
	ask, _ := asking(b)
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
