package httpbridge_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

const app = "https://app.example"

// preflight asks as a browser does before a page's call.
func (s *site) preflight(t testing.TB, path, origin string, kv ...string) reply {
	t.Helper()
	return s.do(t, http.MethodOptions, path, "", append([]string{
		"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type",
	}, kv...)...)
}

// has reports whether a list in a header has a name, in any case.
func has(list, name string) bool {
	return strings.Contains(", "+strings.ToLower(list)+", ", ", "+strings.ToLower(name)+", ")
}

func TestCORS_preflight(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithAuth(func(*http.Request) (context.Context, error) {
		return nil, endpoint.Unauthenticated
	}), httpbridge.WithHeaders([]string{"X-Tenant", "X-Acme-*", "!baggage"}, []string{"X-Cost"}),
		httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{app}, Headers: []string{"X-More"}, PrivateNetwork: true}))
	for _, path := range []string{"/svc/add", "/nothing/there", "/healthz"} {
		r := s.preflight(t, path, app, "Access-Control-Request-Headers", "x-acme-a, x-other,bad name,x-acme-b")
		assert.Equal(t, r.status, 204)
		assert.Equal(t, r.header.Get("Access-Control-Allow-Origin"), app)
		assert.Equal(t, r.header.Get("Access-Control-Allow-Methods"), "GET, HEAD, POST, PUT, PATCH, DELETE")
		assert.Equal(t, r.header.Get("Access-Control-Max-Age"), "7200")
		assert.Equal(t, r.header.Get("Access-Control-Allow-Credentials"), "")
		assert.Equal(t, r.header.Get("Access-Control-Allow-Private-Network"), "")
		assert.Contains(t, r.header.Get("Vary"), "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
		allowed := r.header.Get("Access-Control-Allow-Headers")
		for _, name := range []string{
			"Content-Type", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout", "X-Grpc-Web", "X-User-Agent", // connectrpc.com/cors
			"Authorization", "X-API-Key", "X-More", "X-Tenant", "traceparent", "x-acme-a", "x-acme-b",
		} {
			assert.True(t, has(allowed, name), name, allowed)
		}
		for _, name := range []string{"x-other", "bad name", "baggage", "*", "Cookie"} {
			assert.True(t, !has(allowed, name), name, allowed)
		}
	}
	r := s.preflight(t, "/svc/add", app, "Access-Control-Request-Private-Network", "true")
	assert.Equal(t, r.header.Get("Access-Control-Allow-Private-Network"), "true")

	for _, origin := range []string{"https://evil.example", "null", "https://app.example.evil.example", "http://app.example", app + ":8443", strings.ToUpper(app), app + "/", ""} {
		r := s.preflight(t, "/svc/add", origin)
		failed(t, r, 403, endpoint.PermissionDenied)
		assert.Equal(t, r.header.Get("Access-Control-Allow-Origin"), "", origin)
		assert.Contains(t, r.header.Get("Vary"), "Origin")
	}
	failed(t, s.preflight(t, "/svc/add", app, "Origin", "https://evil.example"), 403, endpoint.PermissionDenied)
	failed(t, s.do(t, http.MethodOptions, "/svc/add", "", "Origin", app), 405, endpoint.Unknown) // not a preflight
}

// TestCORS_answers can be read by the page, refusals and failures, too, and only by pages that may.
func TestCORS_answers(t *testing.T) {
	ran := 0
	m := newMux(t)
	serve(t, m, "svc.count", endpoint.New(func(context.Context, *nothing) (*nothing, error) { ran++; return &nothing{}, nil }))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithHeaders(nil, []string{"X-Cost", "X-Acme-*"}),
		httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{app}, Expose: []string{"x-more"}, Credentials: true, MaxAge: -1}))
	for path, status := range map[string]int{"/svc/count": 200, "/svc/add": 400, "/other/x": 404, "/svc/gone": 404} {
		r := s.post(t, path, `{"b":"x"}`, "Origin", app, "Sec-Fetch-Site", "cross-site")
		assert.Equal(t, r.status, status, r.body)
		assert.Equal(t, r.header.Values("Access-Control-Allow-Origin"), []string{app})
		assert.Equal(t, r.header.Get("Access-Control-Allow-Credentials"), "true")
		assert.True(t, has(strings.Join(r.header.Values("Vary"), ", "), "Origin"))
		exposed := r.header.Get("Access-Control-Expose-Headers")
		for _, name := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "Retry-After", "WWW-Authenticate", "ETag", "X-Cost", "Trailer-X-Cost", "X-More"} {
			assert.True(t, has(exposed, name), name, exposed)
		}
		assert.True(t, !has(exposed, "*"))
	}
	assert.Equal(t, ran, 1)
	asked := s.preflight(t, "/svc/count", app, "Access-Control-Request-Private-Network", "true").header
	assert.Equal(t, asked.Get("Access-Control-Max-Age"), "0")
	assert.Equal(t, asked.Get("Access-Control-Allow-Private-Network"), "", "off by default")

	r := s.post(t, "/svc/count", `{}`, "Origin", "https://evil.example")
	failed(t, r, 403, endpoint.PermissionDenied)
	assert.Equal(t, r.header.Get("Access-Control-Allow-Origin"), "")
	r = s.post(t, "/svc/count", `{}`)
	assert.Equal(t, r.status, 200)
	assert.Equal(t, r.header.Get("Access-Control-Allow-Origin"), "")
	assert.True(t, has(strings.Join(r.header.Values("Vary"), ", "), "Origin"), "a cache must not give it to a page")
	assert.Equal(t, ran, 2)
}

// TestCORS_streams has the headers with the first byte, on each way to ask for a stream.
func TestCORS_streams(t *testing.T) {
	s := start(t, newStreams(t), httpbridge.Expose("svc.*"), httpbridge.WithJSONRPC(""), httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{app}}))
	for name, q := range map[string]struct{ method, path, mediaType, accept, body string }{
		"events":      {"POST", "/svc/count", "application/json", "text/event-stream", `{"n":2}`},
		"lines":       {"POST", "/svc/count", "application/json", "", `{"n":2}`},
		"lines, up":   {"POST", "/svc/total", "application/x-ndjson", "", `{"n":2}`},
		"Connect":     {"POST", "/svc/count", "application/connect+json", "", enveloped(frame{0, `{"n":2}`})},
		"EventSource": {"GET", "/svc/count?message=%7B%7D", "", "text/event-stream", ""},
		"JSON-RPC":    {"POST", "/rpc", "application/json", "", `{"jsonrpc":"2.0","id":1,"method":"svc.add"}`},
		"a failure":   {"POST", "/svc/count", "application/json", "image/png", `{"n":2}`},
	} {
		kv := []string{"Origin", app, "Sec-Fetch-Site", "cross-site"}
		if q.mediaType != "" {
			kv = append(kv, "Content-Type", q.mediaType)
		}
		if q.accept != "" {
			kv = append(kv, "Accept", q.accept)
		}
		r := s.do(t, q.method, q.path, q.body, kv...)
		assert.Equal(t, r.status == 200, name != "a failure", name, r.body)
		assert.Equal(t, r.header.Values("Access-Control-Allow-Origin"), []string{app}, name)
		assert.True(t, has(strings.Join(r.header.Values("Vary"), ", "), "Origin"), name)
	}
}

func TestCORS_any(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithHeaders(nil, []string{"X-*"}), httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{"*"}}))
	r := s.post(t, "/svc/add", `{}`, "Origin", "https://any.example", "Sec-Fetch-Site", "cross-site")
	assert.Equal(t, r.status, 200)
	assert.Equal(t, r.header.Get("Access-Control-Allow-Origin"), "*")
	assert.Equal(t, r.header.Get("Access-Control-Expose-Headers"), "*")
	assert.Equal(t, r.header.Values("Vary"), []string{"Origin", "Accept-Encoding"})
	failed(t, s.do(t, http.MethodPost, "/svc/add", "{}", "Origin", "https://any.example", "Content-Type", "text/plain"), 415, endpoint.Unknown)
}

func TestCORS_off(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	r := s.preflight(t, "/svc/add", app)
	failed(t, r, 405, endpoint.Unknown)
	for name := range r.header {
		assert.True(t, !strings.HasPrefix(name, "Access-Control-"), name)
	}
}

func TestCORS_origins(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithCORS(httpbridge.CORSPolicy{
		Origins: []string{"https://*.app.example", "http://localhost:*", "http://[::1]:8080", "capacitor://localhost", "https://*.port.example:*"},
		MaxAge:  10 * time.Minute,
	}))
	assert.NoError(t, b.Err())
	for origin, want := range map[string]int{
		"https://a.app.example": 204, "https://a.b-c.app.example": 204, "http://localhost": 204, "http://localhost:3000": 204, "http://[::1]:8080": 204,
		"capacitor://localhost": 204, "https://x.port.example:1": 204, "https://x.port.example": 204,
		"https://app.example": 403, "https://.app.example": 403, "https://..app.example": 403, "https://evilapp.example": 403, "https://a.app.example:1": 403, "http://a.app.example": 403,
		"https://evil.example#.app.example": 403, "https://evil.example/.app.example": 403, "https://evil.example?.app.example": 403, "https://x@a.app.example": 403,
		"http://localhost:": 204, "http://localhost:80x": 403, "http://localhost.evil.example:80": 403, "http://[::1]": 403, "https://a.app.example.": 403, "localhost": 403,
	} {
		r := httptest.NewRequest(http.MethodOptions, "/svc/add", http.NoBody)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		assert.Equal(t, w.Code, want, origin)
	}
}

func TestCORS_faults(t *testing.T) {
	fault := func(p httpbridge.CORSPolicy) string {
		err := httpbridge.New(newMux(t), httpbridge.WithCORS(p)).Err()
		if err == nil {
			return ""
		}
		return err.Error()
	}
	assert.Contains(t, fault(httpbridge.CORSPolicy{}), "WithCORS: there is no origin")
	assert.Contains(t, fault(httpbridge.CORSPolicy{Origins: []string{"*"}, Credentials: true}), "with credentials")
	assert.Contains(t, fault(httpbridge.CORSPolicy{Origins: []string{"http://app.example"}, Credentials: true}), "https is needed")
	assert.Equal(t, fault(httpbridge.CORSPolicy{Origins: []string{"http://localhost:*", "http://127.0.0.1:8080"}, Credentials: true}), "")
	assert.Contains(t, fault(httpbridge.CORSPolicy{Origins: []string{app}, Headers: []string{"*", "a b"}, Expose: []string{""}}), `"*"`, `"a b"`, `""`)
	for _, bad := range []string{
		"null", "app.example", "https://", "https://App.example", "https://app.example/", "https://app.example:443", "http://app.example:80",
		"https://*", "https://*.com", "https://a.*.example", "https://*app.example", "https://a@app.example", "https://app.example?x", "https://app.example:x", "",
	} {
		assert.Contains(t, fault(httpbridge.CORSPolicy{Origins: []string{bad}}), "origin")
	}
	ok := httpbridge.CORSPolicy{Origins: []string{app}}
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithCORS(ok), httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{"*"}})).Err().Error(), "twice")
}
