package grpcbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
	"postbus.example/internal/assert"
)

// guarded are the options of a bridge that lets ann call everything but Join.
func guarded() []httpbridge.Option {
	return []httpbridge.Option{
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			if r.Header.Get("Authorization") != "Bearer good" {
				return nil, errors.New("secret: nobody")
			}
			return httpbridge.Identify(r.Context(), &httpbridge.Identity{Subject: "ann"}), nil
		}),
		httpbridge.WithAuthorization(func(_ context.Context, subject string) error {
			if subject == "acme.Words.Join" {
				return errors.New("secret: not ann")
			}
			return nil
		}),
		httpbridge.WithIdentity("edge", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))),
	}
}

// TestHostile refuses strangers for all kinds, in gRPC and gRPC-Web, and hands services one identity: the bridge's.
func TestHostile(t *testing.T) {
	var ran atomic.Int64
	identities := make(chan []string, 1)
	m := endpoint.NewMux(endpoint.MuxCodecs(protobuf.Binary, protobuf.JSON))
	m.Use(endpoint.OnServer(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			ran.Add(1)
			identities <- c.Header.Values("Postbus-Identity")
			if c.Header.Get("Nats-Trace-Only")+c.Header.Get("Rpc-Timeout")+c.Header.Get("Status") != "" {
				t.Error("a header of the bus passed")
			}
			return next(ctx, c)
		}
	}))
	serve(t, m, "acme.Words.Upper", endpoint.New(upper))
	serve(t, m, "acme.Words.Letters", endpoint.NewServerStream(endpoint.Emit(letters)))
	serve(t, m, "acme.Words.Join", endpoint.NewClientStream(join))
	serve(t, m, "acme.Words.Each", endpoint.NewBidiStream(endpoint.Emit(each)))
	s := start(t, m, append(guarded(), httpbridge.WithHeaders([]string{"*"}, nil))...)
	h := http2(t)
	for _, mediaType := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web"} {
		for method, want := range map[string]string{"Upper": "16", "Letters": "16", "Join": "16", "Each": "16", "Join of ann": "7", "Upper of ann": "0"} {
			method, ann := strings.CutSuffix(method, " of ann")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/"+method, strings.NewReader("\x00\x00\x00\x00\x00"))
			assert.NoError(t, err)
			r.Header = http.Header{
				"Content-Type": {mediaType}, "Postbus-Identity": {"forged"}, "Nats-Trace-Only": {"true"}, "Rpc-Timeout": {"1n"}, "Status": {"503"},
			}
			if ann {
				r.Header.Set("Authorization", "Bearer good")
			}
			resp, err := h.Do(r)
			assert.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			assert.NoError(t, err)
			_ = resp.Body.Close()
			got := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
			if got == "" { // gRPC-Web has it in the body
				_, after, _ := strings.Cut(strings.ToLower(string(text)), "grpc-status: ")
				got, _, _ = strings.Cut(after, "\r\n")
			}
			assert.Equal(t, got, want, mediaType, method)
			assert.True(t, !strings.Contains(string(text), "secret") && !strings.Contains(resp.Trailer.Get("Grpc-Message"), "secret"))
			if want == "0" {
				values := <-identities
				assert.Equal(t, len(values), 1)
				assert.True(t, values[0] != "forged")
			}
		}
	}
	assert.Equal(t, ran.Load(), 3)
}

// TestCORS_trailers lets a page of another origin speak gRPC-Web, and read how it ended.
func TestCORS_trailers(t *testing.T) {
	s := start(t, newMux(t), httpbridge.WithCORS(httpbridge.CORSPolicy{Origins: []string{"https://app.example"}}))
	for origin, allowed := range map[string]bool{"https://app.example": true, "https://evil.example": false} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/acme.Words/Upper", strings.NewReader("\x00\x00\x00\x00\x00"))
		assert.NoError(t, err)
		r.Header = http.Header{"Content-Type": {"application/grpc-web+proto"}, "X-Grpc-Web": {"1"}, "Origin": {origin}, "Sec-Fetch-Site": {"cross-site"}}
		resp, err := http1(t).Do(r)
		assert.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		assert.NoError(t, err)
		_ = resp.Body.Close()
		if !allowed {
			assert.Equal(t, resp.Header.Get("Grpc-Status"), "7")
			assert.Equal(t, resp.Header.Get("Access-Control-Allow-Origin"), "")
			continue
		}
		assert.Contains(t, strings.ToLower(string(text)), "grpc-status: 0")
		assert.Equal(t, resp.Header.Get("Access-Control-Allow-Origin"), origin)
		assert.Contains(t, resp.Header.Get("Access-Control-Expose-Headers"), "Grpc-Status", "Grpc-Message")
	}
}

// alarm is a log that takes no panics.
type alarm struct{ t *testing.T }

func (*alarm) Enabled(context.Context, slog.Level) bool { return true }
func (a *alarm) WithAttrs([]slog.Attr) slog.Handler     { return a }
func (a *alarm) WithGroup(string) slog.Handler          { return a }

func (a *alarm) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(at slog.Attr) bool {
		if strings.Contains(at.String(), "panic") {
			a.t.Errorf("%s %s", r.Message, at)
		}
		return true
	})
	return nil
}

// silent serves whatever it is asked for, of any kind, and never fails by itself.
func silent(t testing.TB) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(endpoint.MuxCodecs(protobuf.Binary, protobuf.JSON))
	echo := func(_ context.Context, p *codec.Payload) (*codec.Payload, error) { return p, nil }
	serve(t, m, "acme.Words.Upper", endpoint.New(echo))
	serve(t, m, "acme.Words.Letters", endpoint.NewServerStream(endpoint.Emit(func(ctx context.Context, p *codec.Payload, send func(*codec.Payload) error) error { return send(p) })))
	serve(t, m, "acme.Words.Join", endpoint.NewClientStream(join))
	serve(t, m, "acme.Words.Each", endpoint.NewBidiStream(endpoint.Emit(each)))
	return m
}

// FuzzGRPC sends whole requests of gRPC and gRPC-Web: what is wrong with them is said under the status 200 or one of the client's
// faults, never a 5xx of HTTP, and nothing panics.
func FuzzGRPC(f *testing.F) {
	const auth = " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Type: application/grpc"
	for _, method := range []string{"Upper", "Letters", "Join", "Each", "None"} {
		for _, head := range []string{"\r\nTe: trailers", "-web+proto\r\nX-Grpc-Web: 1", "+json\r\nGrpc-Timeout: 1S", "\r\nGrpc-Encoding: gzip\r\nGrpc-Accept-Encoding: gzip", "-web-text", "+x", "; charset=utf-8", "C", "+\""} {
			for _, body := range []string{"", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x03\x0a\x01x", "\x01\x00\x00\x00\x01x", "\x80\x00\x00\x00\x00", "\x00\xff\xff\xff\xff", "AAAAAAA="} {
				f.Add("POST /acme.Words/"+method+auth+head, []byte(body), method != "Join")
			}
		}
	}
	a := &alarm{}
	opts := append(guarded(), httpbridge.Expose("acme.>"), grpcbridge.Enable(), httpbridge.WithHeaders([]string{"*"}, []string{"*"}), httpbridge.WithLogger(slog.New(a)))
	b := httpbridge.New(silent(f), opts...)
	assert.NoError(f, b.Err())
	f.Fuzz(func(t *testing.T, head string, body []byte, h2 bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
		if err != nil {
			return // net/http answers for itself
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r = r.WithContext(ctx)
		r.Body, r.ContentLength, r.RemoteAddr = io.NopCloser(bytes.NewReader(body)), -1, "192.0.2.1:1"
		if h2 {
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		}
		a.t = t
		w := httptest.NewRecorder()
		b.ServeHTTP(duplex{w}, r)
		switch {
		case w.Code < 500:
		case w.Code == 501 && strings.Contains(w.Body.String(), "unknown content encoding"): // of a request that is not gRPC
		case w.Code == 504 && r.Header["Connect-Timeout-Ms"] != nil:
		case w.Code == http.StatusHTTPVersionNotSupported: // connect-go's, for what needs HTTP/2
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// duplex is a ResponseWriter of HTTP/1.1 that can do what a server's can.
type duplex struct{ *httptest.ResponseRecorder }

func (duplex) EnableFullDuplex() error { return nil }
