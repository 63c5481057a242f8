package httpbridge_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"postbus.example/codec/cbor"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestUnary(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	for _, path := range []string{"/svc.add", "/svc/add", "/svc/add?trace=1"} {
		r := s.post(t, path, `{"a":1,"b":2}`, "Connect-Protocol-Version", "1")
		assert.Equal(t, r.status, 200, r.body)
		assert.Equal(t, r.body, `{"sum":3}`)
		assert.Equal(t, r.header.Get("Content-Type"), "application/json")
	}
	r := s.do(t, "POST", "/svc/add", `{"a":1}`, "Content-Type", "Application/JSON; charset=UTF-8")
	assert.Equal(t, r.body, `{"sum":1}`)
	r = s.do(t, "POST", "/svc/add", `{"a":1}`, "Content-Type", "application/json;charset=UTF8") // no name of it, but common
	assert.Equal(t, r.body, `{"sum":1}`)
	assert.Equal(t, s.log.text(), "")
}

func TestUnary_underARouter(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.Expose("svc.*"))
	m := http.NewServeMux()
	m.Handle("/api/", http.StripPrefix("/api", b))
	m.Handle("/rpc/", http.StripPrefix("/rpc/", b))
	s := start(t, newMux(t))
	s.Config.Handler = m
	assert.Equal(t, s.post(t, "/api/svc/add", `{"a":1}`).body, `{"sum":1}`)
	assert.Equal(t, s.post(t, "/rpc/svc/add", `{"a":1}`).body, `{"sum":1}`)
	assert.Equal(t, s.do(t, "GET", "/api/healthz", "").status, 200)
}

func TestUnary_binary(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"))
	body, err := cbor.CBOR.Append(nil, &addRequest{A: 2, B: 3})
	assert.NoError(t, err)
	r := s.do(t, "POST", "/svc/add", string(body), "Content-Type", "application/cbor")
	assert.Equal(t, r.header.Get("Content-Type"), "application/cbor")
	var sum addResponse
	assert.NoError(t, cbor.CBOR.Decode([]byte(r.body), &sum))
	assert.Equal(t, sum.Sum, 5)

	// What nobody here can decode passes through whole.
	for _, mediaType := range []string{"application/proto", "application/octet-stream", "image/jpeg", "application/vnd.acme.v2+json"} {
		r := s.do(t, "POST", "/svc/echo", "\x00\xff{", "Content-Type", mediaType)
		assert.Equal(t, r.body, "\x00\xff{")
		assert.Equal(t, r.header.Get("Content-Type"), mediaType)
	}
}

func TestUnary_emptyBody(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"))
	assert.Equal(t, s.post(t, "/svc/ping", "").body, `{}`)
	assert.Equal(t, s.post(t, "/svc/ping", "", "Content-Encoding", "gzip").body, `{}`)
	failed(t, s.post(t, "/svc/add", ""), 400, endpoint.InvalidArgument)
	r := s.do(t, "POST", "/svc/echo", "", "Content-Type", "application/proto")
	assert.Equal(t, r.status, 200)
	assert.Equal(t, r.body, "")
}

func TestUnary_malformedJSON(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	for body, want := range map[string][]string{
		`{"a":1,}`:    {"malformed JSON", "offset 8"},
		`{"a":"one"}`: {`field "a"`, "offset"},
		`{"a":1`:      {"offset"},
		`nonsense`:    {"offset"},
	} {
		assert.Contains(t, failed(t, s.post(t, "/svc/add", body), 400, endpoint.InvalidArgument), want...)
	}
}

func TestUnary_contentType(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	for _, mediaType := range []string{
		"text/plain", "text/plain; application/json", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
		"application/grpc", "application/grpc-web+proto", "application/connect+json", "application/json; charset=latin1", "json", ";", "image/jpeg",
	} {
		r := s.do(t, "POST", "/svc/add", `{"a":1}`, "Content-Type", mediaType)
		failed(t, r, 415, endpoint.Unknown)
		assert.Contains(t, r.header.Get("Accept-Post"), "application/json")
	}
	failed(t, s.do(t, "POST", "/svc/add", `{}`), 415, endpoint.Unknown)
	failed(t, s.post(t, "/svc/add", `{}`, "Content-Type", "application/proto"), 415, endpoint.Unknown)
}

func TestUnary_method(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"} {
		r := s.do(t, method, "/svc/add", "", "Content-Type", "application/json")
		assert.Equal(t, r.status, 405)
		assert.Equal(t, r.header.Get("Allow"), "POST")
	}
	failed(t, s.do(t, "GET", "/svc/add", ""), 405, endpoint.Unknown)
}

func TestUnary_otherOrigin(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	failed(t, s.post(t, "/svc/add", `{}`, "Sec-Fetch-Site", "cross-site"), 403, endpoint.PermissionDenied)
	failed(t, s.post(t, "/svc/add", `{}`, "Origin", "https://evil.example"), 403, endpoint.PermissionDenied)
	assert.Equal(t, s.post(t, "/svc/add", `{}`, "Sec-Fetch-Site", "same-origin").status, 200)
	assert.Equal(t, s.post(t, "/svc/add", `{}`, "Origin", s.URL).status, 200)
}

func TestUnary_protocolVersion(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	failed(t, s.post(t, "/svc/add", `{}`, "Connect-Protocol-Version", "2"), 400, endpoint.InvalidArgument)
}

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

func unzip(t testing.TB, s string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(s))
	assert.NoError(t, err)
	data, err := io.ReadAll(z)
	assert.NoError(t, err)
	return string(data)
}

func TestGzip(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Body: 4096}))
	for range 3 { // the pooled reader is clean again after a failure
		assert.Equal(t, s.post(t, "/svc/add", zip(`{"a":4}`), "Content-Encoding", "gzip").body, `{"sum":4}`)
		failed(t, s.post(t, "/svc/add", `{"a":4}`, "Content-Encoding", "gzip"), 400, endpoint.InvalidArgument)
		failed(t, s.post(t, "/svc/add", zip(`{"a":4}`)[:15], "Content-Encoding", "gzip"), 400, endpoint.InvalidArgument)
	}
	assert.Equal(t, s.post(t, "/svc/add", `{"a":4}`, "Content-Encoding", "identity").body, `{"sum":4}`)

	most := strings.Repeat("x", 4096)
	assert.Equal(t, len(s.post(t, "/svc/echo", zip(most), "Content-Encoding", "gzip").body), 4096)
	failed(t, s.post(t, "/svc/echo", zip(most+"x"), "Content-Encoding", "gzip"), 413, endpoint.ResourceExhausted)
	bomb := zip(strings.Repeat("0", 1<<20)) // a megabyte in a kilobyte
	assert.True(t, len(bomb) < 4096)
	failed(t, s.post(t, "/svc/echo", bomb, "Content-Encoding", "gzip"), 413, endpoint.ResourceExhausted)

	for _, name := range []string{"br", "gzip, gzip", "zstd"} {
		r := s.post(t, "/svc/add", `{}`, "Content-Encoding", name)
		assert.Contains(t, failed(t, r, 501, endpoint.Unimplemented), "gzip", "identity")
		assert.Equal(t, r.header.Get("Accept-Encoding"), "gzip")
	}
}

func TestGzip_reply(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"))
	long := `"` + strings.Repeat("long ", 1000) + `"`
	for accept, gzipped := range map[string]bool{
		"gzip": true, "deflate, GZIP;q=0.5": true, "*": true, "gzip;q=0": false, "identity": false, "br": false, "gzip;q=0, *": false, "gzip;q=x": false,
	} {
		r, err := http.NewRequest(http.MethodPost, s.URL+"/svc/echo", strings.NewReader(long))
		assert.NoError(t, err)
		r.Header.Set("Accept-Encoding", accept)
		r.Header.Set("Content-Type", "application/json")
		got := s.send(t, r)
		assert.Equal(t, got.header.Get("Vary"), "Accept-Encoding")
		if gzipped {
			assert.Equal(t, got.header.Get("Content-Encoding"), "gzip", accept)
			got.body = unzip(t, got.body)
		}
		assert.Equal(t, got.body, long, accept)
	}
	r := s.do(t, "POST", "/svc/echo", long, "Content-Type", "image/jpeg", "Accept-Encoding", "gzip")
	assert.Equal(t, r.body, long)
}

func TestTimeout(t *testing.T) {
	m := newMux(t)
	left := make(chan time.Duration, 1)
	serve(t, m, "svc.left", endpoint.New(func(ctx context.Context, _ *nothing) (*nothing, error) {
		d, _ := ctx.Deadline()
		left <- time.Until(d)
		return &nothing{}, nil
	}))
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithTimeouts(httpbridge.Timeouts{Call: 20 * time.Second, MaxCall: 40 * time.Second}))
	for ms, want := range map[string]time.Duration{
		"30000": 30 * time.Second, "0000030000": 30 * time.Second, "9999999999": 40 * time.Second, "": 20 * time.Second,
	} {
		var kv []string
		if ms != "" {
			kv = []string{"Connect-Timeout-Ms", ms}
		}
		assert.Equal(t, s.post(t, "/svc/left", `{}`, kv...).status, 200)
		got := <-left
		assert.True(t, got <= want && got > want-10*time.Second, ms, got.String())
	}
	failed(t, s.post(t, "/svc/block", `{}`, "Connect-Timeout-Ms", "20"), 504, endpoint.DeadlineExceeded)
	select {
	case <-block.entered:
		assert.ErrorIs(t, <-block.cause, context.DeadlineExceeded)
	default: // a slow machine: the time was up before
	}
	failed(t, s.post(t, "/svc/add", `{}`, "Connect-Timeout-Ms", "0"), 504, endpoint.DeadlineExceeded)
	for _, bad := range []string{"", "-1", "+1", "1.5", "1s", "99999999999", "1 0", "٣"} {
		failed(t, s.post(t, "/svc/add", `{}`, "Connect-Timeout-Ms", bad), 400, endpoint.InvalidArgument)
	}
	failed(t, s.post(t, "/svc/add", `{}`, "Connect-Timeout-Ms", "1000", "Connect-Timeout-Ms", "2000"), 400, endpoint.InvalidArgument)
}

func TestDisconnect(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	statuses := make(chan int, 1)
	s := start(t, m, httpbridge.Expose("svc.block"))
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spy := &statusWriter{ResponseWriter: w}
		s.bridge.ServeHTTP(spy, r)
		statuses <- spy.status
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/svc/block", strings.NewReader(`{}`))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Do(r)
		done <- err
	}()
	<-block.entered
	cancel()
	assert.ErrorIs(t, <-done, context.Canceled)
	assert.ErrorIs(t, <-block.cause, context.Canceled)
	assert.Equal(t, <-statuses, 499)
	assert.Contains(t, s.log.text(), "DEBUG", "status=499", "code=canceled")
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestAuth(t *testing.T) {
	m := newMux(t)
	who := make(chan []string, 1)
	serve(t, m, "svc.who", endpoint.New(func(ctx context.Context, _ *nothing) (*nothing, error) {
		who <- endpoint.FromContext(ctx).Header.Values("X-User")
		return &nothing{}, nil
	}))
	s := start(t, m, httpbridge.Expose("svc.who"), httpbridge.WithHeaders([]string{"X-*"}, nil),
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			switch token := r.Header.Get("Authorization"); token {
			case "ann":
				return endpoint.WithHeader(r.Context(), "X-User", token), nil
			case "nil":
				return nil, nil
			case "stray":
				return context.Background(), nil
			case "bob":
				return nil, endpoint.PermissionDenied.New("not bob")
			case "down":
				return nil, endpoint.Unavailable.New("no keys").WithRetryAfter(1500 * time.Millisecond)
			case "panic":
				panic("secret")
			case "":
				return nil, endpoint.Unauthenticated
			default:
				return nil, errors.New("secret: " + token)
			}
		}))
	assert.Equal(t, s.post(t, "/svc/who", `{}`, "Authorization", "ann").status, 200)
	assert.Equal(t, <-who, []string{"ann"})
	assert.Equal(t, s.post(t, "/svc/who", `{}`, "Authorization", "ann", "X-User", "root").status, 200)
	assert.Equal(t, <-who, []string{"ann"}, "nobody stands beside the one who was authenticated")
	assert.Equal(t, s.post(t, "/svc/who", `{}`, "Authorization", "ann", "x-USER", "root", "X-User", "eve").status, 200)
	assert.Equal(t, <-who, []string{"ann"})
	for _, open := range []string{"nil", "stray"} {
		assert.Equal(t, s.post(t, "/svc/who", `{}`, "Authorization", open).status, 200)
		assert.Equal(t, <-who, nil)
	}
	failed(t, s.post(t, "/svc/who", `{}`), 401, endpoint.Unauthenticated)
	assert.Equal(t, failed(t, s.post(t, "/svc/who", `{}`, "Authorization", "bob"), 403, endpoint.PermissionDenied), "not bob")
	assert.Equal(t, failed(t, s.post(t, "/svc/who", `{}`, "Authorization", "x"), 401, endpoint.Unauthenticated), "")
	assert.Equal(t, failed(t, s.post(t, "/svc/who", `{}`, "Authorization", "panic"), 500, endpoint.Internal), "")
	r := s.post(t, "/svc/who", `{}`, "Authorization", "down")
	failed(t, r, 503, endpoint.Unavailable)
	assert.Equal(t, r.header.Get("Retry-After"), "2")
	assert.Contains(t, s.log.text(), "secret: x", "panic in ", ": secret")

	// The body is not read: not even asked for.
	req, err := http.NewRequest(http.MethodPost, s.URL+"/svc/who", unread{t})
	assert.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	s.client.Transport.(*http.Transport).ExpectContinueTimeout = math.MaxInt64
	failed(t, s.send(t, req), 401, endpoint.Unauthenticated)
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was asked for")
	return 0, io.EOF
}

func TestAuth_strayContextStillCancels(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.block"),
		httpbridge.WithAuth(func(*http.Request) (context.Context, error) { return context.Background(), nil }))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/svc/block", strings.NewReader(`{}`))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.client.Do(r)
	}()
	<-block.entered
	cancel()
	<-done
	assert.ErrorIs(t, <-block.cause, context.Canceled)
}

// stuck is a request whose body never comes.
const stuck = "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"

func TestTimeout_body(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	status, err := raw(s, stuck+"Connect-Timeout-Ms: 20\r\n\r\n{")
	assert.NoError(t, err)
	assert.Equal(t, status, 504)
	s = start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 20 * time.Millisecond}))
	status, err = raw(s, stuck+"Connect-Timeout-Ms: 60000\r\n\r\n{")
	assert.NoError(t, err)
	assert.Equal(t, status, 408)
}

// TestTimeout_auth reaches what authenticates, and is told as what it is.
func TestTimeout_auth(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}))
	failed(t, s.post(t, "/svc/add", `{}`, "Connect-Timeout-Ms", "20"), 504, endpoint.DeadlineExceeded)
}

// TestTimeout_strayContext is told as a deadline, too, whichever of two contexts ends first.
func TestTimeout_strayContext(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.block"),
		httpbridge.WithAuth(func(*http.Request) (context.Context, error) { return context.Background(), nil }))
	for range 50 {
		failed(t, s.post(t, "/svc/block", `{}`, "Connect-Timeout-Ms", "5"), 504, endpoint.DeadlineExceeded)
	}
}
