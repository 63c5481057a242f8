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

// flowing is a transport whose streams send many items at once.
type flowing struct{ items int }

func (f *flowing) Handler(string, *endpoint.Spec) endpoint.Handler {
	return func(_ context.Context, c *endpoint.Call) (any, error) {
		for range f.items {
			if err := c.Send(instantReply); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

func (*flowing) Discover(context.Context, string) ([]endpoint.Instance, error) {
	return []endpoint.Instance{{Endpoints: []endpoint.EndpointInfo{{Subject: "svc.feed", Kind: endpoint.ServerStreamKind}}}}, nil
}

func (w *quiet) FlushError() error { return nil }

func (w *quiet) WriteString(s string) (int, error) { return w.body.WriteString(s) } // as those of net/http do

// TestAllocs_item holds that an item costs the bridge no memory of its own, however it is written.
func TestAllocs_item(t *testing.T) {
	f := &flowing{items: 1000}
	call := endpoint.ServerStreamCaller[*codec.Payload, *codec.Payload](f, "svc.feed")
	itself := testing.AllocsPerRun(20, func() {
		for range call(t.Context(), &codec.Payload{}) {
		}
	})
	b := httpbridge.New(f, httpbridge.Expose("svc.feed"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
	_, err := b.Endpoints(t.Context())
	assert.NoError(t, err)
	for name, tt := range map[string]struct{ contentType, accept, body string }{
		"events":  {"application/json", sse, `{}`},
		"lines":   {"application/json", "*/*", `{}`},
		"connect": {"application/connect+json", "*/*", messages(`{}`)},
	} {
		w := &quiet{header: http.Header{}}
		w.body.Grow(1 << 20)
		ask := func() {
			clear(w.header)
			w.body.Reset()
			r := (&http.Request{
				Method: http.MethodPost, URL: &url.URL{Path: "/svc/feed"}, ProtoMajor: 1, ProtoMinor: 1, Host: "x",
				Body: io.NopCloser(bytes.NewReader([]byte(tt.body))), ContentLength: int64(len(tt.body)),
				Header: http.Header{"Content-Type": {tt.contentType}, "Accept": {tt.accept}},
			}).WithContext(t.Context())
			b.ServeHTTP(w, r)
			assert.Equal(t, w.status, 200, w.body.String())
		}
		f.items = 0
		ask()
		without := testing.AllocsPerRun(20, ask)
		f.items = 1000
		ask()
		with := testing.AllocsPerRun(20, ask)
		assert.True(t, w.body.Len() > 1000*len(`{"sum":3}`), "they are there")
		t.Log(name, without, "for a stream,", (with-without)/1000, "for an item, of which the call's", itself/1000)
		assert.True(t, with-without < itself+10, "no allocation for an item")
		assert.True(t, without < 80, "allocations of a stream within bounds")
	}
}
