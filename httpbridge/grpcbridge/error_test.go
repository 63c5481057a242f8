package grpcbridge_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestErrors(t *testing.T) {
	s := start(t, newMux(t))
	dialects(t, func(t *testing.T, h *http.Client, bidi bool, opts ...connect.ClientOption) {
		t.Helper()
		before := len(s.log.all())
		_, err := dial[text, text](s, "Upper", h, opts...).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("thirteen")))
		unfortunate(t, err)

		down, err := dial[text, text](s, "Letters", h, opts...).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("ab!c")))
		assert.NoError(t, err)
		got := ""
		for down.Receive() {
			got += down.Msg().GetValue()
		}
		assert.Equal(t, got, "ab")
		unfortunate(t, down.Err())
		_ = down.Close()

		up := dial[text, text](s, "Join", h, opts...).CallClientStream(t.Context())
		_ = up.Send(wrapperspb.String("thirteen"))
		_, err = up.CloseAndReceive()
		unfortunate(t, err)
		assert.Equal(t, len(s.log.all()), before+3, "each is logged once")
	})
	assert.Contains(t, s.log.all()[0], "DEBUG request failed", "code=failed_precondition", "path=/acme.Words/Upper", "subject=acme.Words.Upper")
}

// unfortunate checks all that an error of a service says.
func unfortunate(t testing.TB, err error) {
	t.Helper()
	e := refused(t, err, connect.CodeFailedPrecondition)
	assert.Equal(t, e.Message(), "13 is unlucky: ü\n")
	assert.Equal(t, len(e.Details()), 2)
	v, err := e.Details()[0].Value()
	assert.NoError(t, err)
	assert.Equal(t, v.(*text).GetValue(), "no")
	assert.Equal(t, e.Details()[1].Type(), "grpcbridge_test.quota")
	assert.Equal(t, string(e.Details()[1].Bytes()), `{"Left":5}`)
	assert.Equal(t, e.Meta().Get("Grpc-Retry-Pushback-Ms"), "1500")
	assert.Equal(t, e.Meta().Get("X-End"), "one")
}

func TestErrors_hidden(t *testing.T) {
	s := start(t, newMux(t))
	c := dial[text, text](s, "Upper", http2(t), connect.WithGRPC())
	_, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("internal")))
	assert.Equal(t, refused(t, err, connect.CodeUnknown).Message(), "")
}

func TestNobodyThere(t *testing.T) {
	m := newMux(t)
	s := start(t, m, httpbridge.Expose("lost.Words.Upper"))
	dialects(t, func(t *testing.T, h *http.Client, _ bool, opts ...connect.ClientOption) {
		t.Helper()
		for path, code := range map[string]connect.Code{
			"/acme.Words/Lower": connect.CodeUnimplemented, // under a pattern
			"/lost.Words/Upper": connect.CodeUnavailable,   // named
			"/other.Words/X":    connect.CodeUnimplemented, // not exposed
			"/$SYS/REQ":         connect.CodeUnimplemented,
		} {
			c := connect.NewClient[text, text](h, s.URL+path, opts...)
			_, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
			refused(t, err, code)
		}
	})
}

// bare is a transport that tells nothing.
type bare struct{ endpoint.Transport }

// Without a directory a call of one message works, and a stream is refused by its service.
func TestUnknownKind(t *testing.T) {
	s := start(t, bare{newMux(t)})
	reply, err := dial[text, text](s, "Upper", http2(t), connect.WithGRPC()).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	assert.NoError(t, err)
	assert.Equal(t, reply.Msg.GetValue(), "X")
	down, err := dial[text, text](s, "Letters", http2(t), connect.WithGRPC()).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	assert.NoError(t, err)
	assert.True(t, !down.Receive())
	refused(t, down.Err(), connect.CodeUnimplemented)
	_ = down.Close()
}

type nameKey struct{}

// Who is refused was not read.
func TestAuth(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			return endpoint.WithHeader(context.WithValue(r.Context(), nameKey{}, "x"), "X-In", "ours"), nil
		case "":
			return nil, errors.New("nobody")
		}
		return nil, endpoint.PermissionDenied.New("not you")
	}))
	for token, code := range map[string]connect.Code{"": connect.CodeUnauthenticated, "Bearer bad": connect.CodePermissionDenied} {
		endless, stop := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/Upper", endless)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Authorization", token)
		resp, err := http2(t).Do(r)
		assert.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		assert.Equal(t, resp.Trailer.Get("Grpc-Status"), map[connect.Code]string{connect.CodeUnauthenticated: "16", connect.CodePermissionDenied: "7"}[code])
		_ = stop.Close()
		_ = resp.Body.Close()
	}
	r := connect.NewRequest(wrapperspb.String("x"))
	r.Header()["X-In"] = []string{"theirs"}
	r.Header().Set("Authorization", "Bearer good")
	reply, err := dial[text, text](s, "Upper", http2(t), connect.WithGRPC()).CallUnary(t.Context(), r)
	assert.NoError(t, err)
	assert.Equal(t, reply.Header().Get("X-Out"), "ours")
}

func TestTimeout(t *testing.T) {
	var left atomic.Int64
	m := endpoint.NewMux(endpoint.MuxCodecs(protobuf.Binary))
	serve(t, m, "acme.Words.Upper", endpoint.New(func(ctx context.Context, r *text) (*text, error) {
		d, _ := ctx.Deadline()
		left.Store(int64(time.Until(d)))
		if r.GetValue() == "wait" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return r, nil
	}))
	s := start(t, m, httpbridge.WithTimeouts(httpbridge.Timeouts{Call: time.Minute, MaxCall: time.Hour}))
	for timeout, want := range map[string]time.Duration{
		"": time.Minute, "10S": 10 * time.Second, "2M": 2 * time.Minute, "99999999H": time.Hour, "9000000u": 9 * time.Second, "20000m": 20 * time.Second,
		"99999999n": 99999999,
	} {
		status, _ := raw(t, s, "\x00\x00\x00\x00\x00", "Grpc-Timeout", timeout)
		assert.Equal(t, status, "0", timeout)
		got := time.Duration(left.Load())
		assert.True(t, got <= want && got > want-5*time.Second, timeout+": "+got.String())
	}
	for _, timeout := range []string{"S", "10", "123456789S", "-1S", "1.5S", "10s", " 1S", "1S, 2S"} {
		status, message := raw(t, s, "\x00\x00\x00\x00\x00", "Grpc-Timeout", timeout)
		assert.Equal(t, status, "3", timeout)
		assert.Contains(t, message, "grpc-timeout")
	}
	for _, timeout := range []string{"0S", "20m"} {
		status, _ := raw(t, s, "\x00\x00\x00\x00\x06\x0a\x04wait", "Grpc-Timeout", timeout)
		assert.Equal(t, status, "4", timeout)
	}
}

// raw calls acme.Words.Upper with a body as it stands; kv are headers.
func raw(t testing.TB, s *site, body string, kv ...string) (status, message string) {
	t.Helper()
	resp := post(t, s, body, kv...)
	_, err := io.Copy(io.Discard, resp.Body)
	assert.NoError(t, err)
	assert.NoError(t, resp.Body.Close())
	assert.Equal(t, resp.StatusCode, 200)
	return resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
}

func post(t testing.TB, s *site, body string, kv ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/Upper", strings.NewReader(body))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/grpc")
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] != "" {
			r.Header.Set(kv[i], kv[i+1])
		}
	}
	resp, err := http2(t).Do(r)
	assert.NoError(t, err)
	return resp
}

func TestMalformed(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithLimits(httpbridge.Limits{Body: 1000}))
	for body, want := range map[string]string{
		"": "12", // no message
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00": "12", // two
		"\x00\x00\x00":                                     "13",
		"\x00\x00\x00\x00\x05abc":                          "13",
		"\x00\x00\x00\x00\x02\xff\xff":                     "3",  // no protobuf, says the endpoint
		"\x01\x00\x00\x00\x00":                             "13", // compressed, and nobody said how
		"\x01\x00\x00\x00\x01x":                            "13",
		"\x00\x00\x00\x03\xe9" + strings.Repeat("x", 1001): "8",
		"\x00\xff\xff\xff\xff":                             "8",
	} {
		status, message := raw(t, s, body)
		assert.Equal(t, status, want, body+": "+message)
	}
	status, _ := raw(t, s, "\x00\x00\x00\x00\x00", "Grpc-Encoding", "br")
	assert.Equal(t, status, "12")
	for name, value := range map[string]string{"Content-Type": "application/grpc+thrift", "Sec-Fetch-Site": "cross-site"} {
		resp := post(t, s, "\x00\x00\x00\x00\x00", name, value)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if name == "Content-Type" {
			assert.Equal(t, resp.StatusCode, 415)
			continue
		}
		assert.Equal(t, resp.Trailer.Get("Grpc-Status"), "7")
	}
}

// Over HTTP/1.1 there is no bidirectional stream, and its client is told.
func TestBidiStream_overHTTP1(t *testing.T) {
	s := start(t, newMux(t))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/Each", strings.NewReader("\x00\x00\x00\x00\x00"))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/grpc-web")
	resp, err := http1(t).Do(r)
	assert.NoError(t, err)
	assert.NoError(t, resp.Body.Close())
	assert.Equal(t, resp.StatusCode, 200)
	assert.Equal(t, resp.Header.Get("Grpc-Status"), "12")
	assert.Equal(t, resp.Header.Get("Grpc-Message"), "a bidirectional stream needs HTTP/2")
}

// A page of another origin calls with gRPC-Web where that is allowed.
func TestCORS(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{"https://app.example"}}))
	for origin, ok := range map[string]bool{"https://app.example": true, "https://evil.example": false} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.URL+"/acme.Words/Upper", http.NoBody)
		assert.NoError(t, err)
		r.Header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type,grpc-timeout,x-grpc-web"}}
		resp, err := http1(t).Do(r)
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
		assert.Equal(t, resp.StatusCode, map[bool]int{true: 204, false: 403}[ok])

		q := connect.NewRequest(wrapperspb.String("x"))
		q.Header().Set("Origin", origin)
		reply, err := dial[text, text](s, "Upper", http1(t), connect.WithGRPCWeb()).CallUnary(t.Context(), q)
		if !ok {
			refused(t, err, connect.CodePermissionDenied)
			continue
		}
		assert.NoError(t, err)
		assert.Equal(t, reply.Header().Get("Access-Control-Allow-Origin"), origin)
		assert.Contains(t, reply.Header().Get("Access-Control-Expose-Headers"), "Grpc-Status", "Grpc-Message")
	}
}

func TestMethod(t *testing.T) {
	s := start(t, newMux(t))
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/acme.Words/Upper", http.NoBody)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/grpc")
		resp, err := http2(t).Do(r)
		assert.NoError(t, err)
		assert.Equal(t, resp.StatusCode, 405)
		assert.Equal(t, resp.Header.Get("Allow"), "POST")
		_ = resp.Body.Close()
	}
}

// endless has no end, and counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	e.taken.Add(int64(len(p)))
	return len(p), nil
}

// A message that says it has 4 GiB is refused before they come.
func TestGiantMessage(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithLimits(httpbridge.Limits{Body: 1000}))
	for _, method := range []string{"Upper", "Letters", "Join", "Each"} {
		e := &endless{}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/"+method,
			io.MultiReader(strings.NewReader("\x00\xff\xff\xff\xff"), e))
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/grpc")
		resp, err := http2(t).Do(r)
		assert.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		assert.Equal(t, resp.Trailer.Get("Grpc-Status"), "8", method)
		assert.NoError(t, resp.Body.Close())
		assert.True(t, e.taken.Load() < 4<<20, method)
	}
}

// The limit is for each message, not for all of a stream.
func TestManyMessages(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithLimits(httpbridge.Limits{Body: 1000}))
	up := dial[text, text](s, "Join", http2(t), connect.WithGRPC()).CallClientStream(t.Context())
	for range 10 {
		assert.NoError(t, up.Send(wrapperspb.String(strings.Repeat("x", 900))))
	}
	reply, err := up.CloseAndReceive()
	assert.NoError(t, err)
	assert.Equal(t, len(reply.Msg.GetValue()), 9009)
}

// announced is a transport whose directory says that everything is of a kind that no endpoint can be of.
type announced struct{ endpoint.Transport }

func (announced) Discover(context.Context, string) ([]endpoint.Instance, error) {
	return []endpoint.Instance{{Endpoints: []endpoint.EndpointInfo{{Subject: "acme.Words.Upper", Kind: endpoint.GatherKind}}}}, nil
}

func TestHostileDirectory(t *testing.T) {
	s := start(t, announced{newMux(t)})
	status, message := raw(t, s, "\x00\x00\x00\x00\x00")
	assert.Equal(t, status, "0", message)
}
