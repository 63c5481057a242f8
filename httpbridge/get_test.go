package httpbridge_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postbus.example/codec/cbor"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// query makes a path with a query.
func query(path string, kv ...string) string {
	v := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return path + "?" + v.Encode()
}

func TestGet(t *testing.T) {
	message := `{"a":1,"b":2}`
	encoded := base64.StdEncoding.EncodeToString([]byte(message))
	binary, err := cbor.CBOR.Append(nil, &addRequest{1, 2})
	assert.NoError(t, err)
	overAll(t, newStreams(t), func(t *testing.T, s *site) {
		t.Helper()
		for _, path := range []string{
			query("/svc/get", "message", message),
			query("/svc.get", "message", message, "encoding", "json", "connect", "v1", "other", "x", "other", "y"),
			query("/svc/get", "message", encoded, "base64", "1"),
			query("/svc/get", "message", strings.TrimRight(encoded, "="), "base64", "1"),
			query("/svc/get", "message", base64.URLEncoding.EncodeToString([]byte(gzipped(t, message))), "base64", "1", "compression", "gzip"),
		} {
			r := s.do(t, "GET", path, "")
			assert.Equal(t, r.status, 200, r.body)
			assert.Equal(t, r.body, `{"sum":3}`)
			assert.Equal(t, r.header.Get("Content-Type"), "application/json")
			assert.Equal(t, r.header.Get("Cache-Control"), "no-cache")
			assert.Equal(t, r.header.Get("Vary"), "Accept-Encoding")
		}
		assert.Equal(t, s.do(t, "GET", "/svc/get", "").body, `{"sum":0}`)
		r := s.do(t, "GET", query("/svc/get", "message", base64.RawURLEncoding.EncodeToString(binary), "base64", "1", "encoding", "cbor"), "")
		assert.Equal(t, r.status, 200, r.body)
		assert.Equal(t, r.header.Get("Content-Type"), "application/cbor")
		r = s.do(t, "HEAD", query("/svc/get", "message", message), "")
		assert.Equal(t, r.status, 200)
		assert.Equal(t, r.body, "")
		assert.Equal(t, r.header.Get("Content-Length"), "9")

		empty, err := http.NewRequest(http.MethodGet, s.URL+query("/svc/get", "message", message), struct{ io.Reader }{strings.NewReader("")})
		assert.NoError(t, err)
		empty.Header.Set("Accept-Encoding", "identity")
		assert.Equal(t, s.send(t, empty).body, `{"sum":3}`, "an empty body in chunks")
	}, httpbridge.Expose("svc.*"))
}

func TestGet_refused(t *testing.T) {
	s := start(t, newStreams(t), httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Body: 2000}))
	for path, status := range map[string]int{
		query("/svc/get", "message", "{", "encoding", "json"):                   400,
		query("/svc/get", "message", "!", "base64", "1"):                        400,
		query("/svc/get", "message", "{}", "base64", "yes"):                     400,
		query("/svc/get", "message", "{}", "message", "{}"):                     400,
		query("/svc/get", "message", "{}", "encoding", "json", "connect", "v2"): 400,
		query("/svc/get", "message", "{}", "connect", "v1"):                     400,
		query("/svc/get", "encoding", "json", "connect", "v1"):                  400,
		query("/svc/get", "message", "{}", "encoding", "a/b"):                   400,
		query("/svc/get", "message", "{}", "encoding", "connect+json"):          415,
		query("/svc/get", "message", "{}", "encoding", "grpc"):                  415,
		query("/svc/get", "message", "{}", "encoding", "foo"):                   415,
		query("/svc/get", "message", "{}", "compression", "br"):                 501,
		query("/svc/get", "message", "{}", "compression", "gzip"):               400,
		query("/svc/get", "message", strings.Repeat(" ", 2001)):                 413,
		query("/svc/get", "message", base64.RawURLEncoding.EncodeToString([]byte(gzipped(t, strings.Repeat(" ", 1<<20)))), "base64", "1", "compression", "gzip"): 413,
		"/svc/get?message=%zz": 400,
		"/svc/get?a;b":         400,
	} {
		r := s.do(t, "GET", path, "")
		assert.Equal(t, r.status, status, path+r.body)
	}
	failed(t, s.do(t, "GET", "/svc/get", "{}"), 400, endpoint.InvalidArgument)
	for path, allow := range map[string]string{
		"/svc/add":   "POST", // merely idempotent
		"/svc/total": "POST", "/svc/double": "POST",
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			r := s.do(t, method, path, "")
			assert.Equal(t, r.status, 405)
			assert.Equal(t, r.header.Get("Allow"), allow)
		}
	}
	assert.Equal(t, s.do(t, "PUT", "/svc/get", "").header.Get("Allow"), "GET, HEAD, POST")
	assert.Equal(t, s.do(t, "HEAD", "/svc/count", "").header.Get("Allow"), "GET, POST")
}

func TestGet_ETag(t *testing.T) {
	m := endpoint.NewMux()
	text := strings.Repeat("a", 2000)
	serve(t, m, "svc.text", endpoint.New(func(ctx context.Context, _ *nothing) (*string, error) {
		endpoint.FromContext(ctx).Reply.Set("X-Said", "yes")
		return &text, nil
	}, endpoint.ReadOnly()))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithHeaders(nil, []string{"X-Said", "Cache-Control"}))
	ask := func(kv ...string) reply { return s.do(t, "GET", "/svc/text", "", kv...) }
	plain := ask()
	tag := plain.header.Get("ETag")
	assert.Equal(t, plain.status, 200)
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		r := ask("If-None-Match", match)
		assert.Equal(t, r.status, 304, match)
		assert.Equal(t, r.body, "")
		assert.Equal(t, r.header.Get("ETag"), tag)
		assert.Equal(t, r.header.Get("Vary"), "Accept-Encoding")
		assert.Equal(t, r.header.Get("Cache-Control"), "no-cache")
	}
	assert.Equal(t, ask("If-None-Match", `"x"`).status, 200)
	text += "b"
	changed := ask("If-None-Match", tag)
	assert.Equal(t, changed.status, 200)
	assert.True(t, changed.header.Get("ETag") != tag, "another reply")

	// What is compressed has other bytes.
	r, err := http.NewRequest(http.MethodGet, s.URL+"/svc/text", http.NoBody)
	assert.NoError(t, err)
	r.Header.Set("Accept-Encoding", "gzip")
	zipped := s.send(t, r)
	assert.Equal(t, zipped.header.Get("Content-Encoding"), "gzip")
	assert.True(t, zipped.header.Get("ETag") != changed.header.Get("ETag"), "other bytes")

	allow := func(r *http.Request) (context.Context, error) { return r.Context(), nil }
	guarded := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithAuth(allow))
	assert.Equal(t, guarded.do(t, "GET", "/svc/text", "").header.Get("Cache-Control"), "private, no-cache")
}
