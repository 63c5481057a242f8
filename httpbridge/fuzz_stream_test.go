package httpbridge_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// FuzzEnvelope sends bytes as the request of each kind of stream. Whatever they are, the answer is whole, is never the bridge's own
// failure, and has no more items than the request has messages.
func FuzzEnvelope(f *testing.F) {
	one := messages(`{"n":1}`)
	for _, body := range []string{"", one, one + one, one[:3], one[:9], "\x01\x00\x00\x00\x00", "\x02\x00\x00\x00\x02{}", "\xff\xff\xff\xff\xff", "\x00\xff\xff\xff\xff{}", "\x00\x00\x00\x00\x00"} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	f.Add([]byte(enveloped(frame{1, gzipped(f, `{"n":1}`)})), true)
	b := httpbridge.New(newStreams(f), httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Body: 1 << 16}))
	_, err := b.Endpoints(f.Context())
	assert.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte, zipped bool) {
		for _, path := range []string{"/svc/count", "/svc/total", "/svc/double"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body)))
			r.ProtoMajor = 2 // a recorder has no connection to give up
			r.Header.Set("Content-Type", "application/connect+json")
			if zipped {
				r.Header.Set("Connect-Content-Encoding", "gzip")
			}
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			out := ended(t, reply{w.Code, w.Header(), w.Body.String()})
			if out.err != nil && out.err.Code == endpoint.Internal && !strings.Contains(out.err.Message, "Connect-Content-Encoding") {
				t.Errorf("%s: %v", path, out.err)
			}
			if path != "/svc/count" && len(out.items) > 1+len(body)/5 {
				t.Errorf("%s: %d items of %d bytes", path, len(out.items), len(body))
			}
		}
	})
}

// FuzzLines is the same for lines of JSON.
func FuzzLines(f *testing.F) {
	for _, body := range []string{"", "\n", "{\"n\":1}\n{\"n\":2}", "{\"n\":1}\r\n\r\n", "{", "\x00", strings.Repeat("x", 5000)} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	f.Add([]byte(gzipped(f, "{\"n\":1}\n")), true)
	b := httpbridge.New(newStreams(f), httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Body: 1 << 12}))
	f.Fuzz(func(t *testing.T, body []byte, zipped bool) {
		for _, path := range []string{"/svc/total", "/svc/double"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body)))
			r.ProtoMajor = 2
			r.Header.Set("Content-Type", "application/x-ndjson")
			if zipped {
				r.Header.Set("Content-Encoding", "gzip")
			}
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			if w.Code >= 500 {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
			if body := w.Body.String(); w.Code == 200 && path == "/svc/double" && body != "" && !strings.HasSuffix(body, "}\n") {
				t.Errorf("%s: half a line: %q", path, body)
			}
		}
	})
}

// FuzzQuery is a GET's query.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"", "message=%7B%7D", "message=e30&base64=1", "encoding=json&connect=v1&message={}", "message=a&message=b", "a;b", "%zz", "compression=gzip&message=x", "base64=2", "encoding=../x"} {
		f.Add(q)
	}
	b := httpbridge.New(newStreams(f), httpbridge.Expose("svc.*"))
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/svc/get", RawQuery: query}, Header: http.Header{}, Body: http.NoBody, ProtoMajor: 1}
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 413, 415:
		case 501: // an unknown compression
			assert.Contains(t, w.Body.String(), "encoding")
		default:
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	})
}
