package httpbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// alarm is a log that takes no errors: a bridge has them for what is its own fault.
type alarm struct{ t *testing.T }

func (a *alarm) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (a *alarm) WithAttrs([]slog.Attr) slog.Handler           { return a }
func (a *alarm) WithGroup(string) slog.Handler                { return a }

func (a *alarm) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	r.Attrs(func(at slog.Attr) bool {
		b.WriteString(" " + at.String())
		return true
	})
	if strings.Contains(b.String(), "Connect-Content-Encoding does not say how") {
		return nil // the code is that of Connect's conformance suite
	}
	a.t.Errorf("%s%s", r.Message, b.String())
	return nil
}

// blameless serves what never fails by itself, so that every failure is the request's or the bridge's.
func blameless(t testing.TB) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(endpoint.MuxCodecs(codec.JSON, cbor.CBOR))
	serve(t, m, "svc.add", endpoint.New(func(_ context.Context, r *addRequest) (*addResponse, error) {
		return &addResponse{Sum: r.A + r.B}, nil
	}))
	serve(t, m, "svc.get", endpoint.New(func(_ context.Context, r *userRequest) (*nothing, error) { return &nothing{}, nil }, endpoint.ReadOnly()))
	serve(t, m, "svc.list", endpoint.New(func(_ context.Context, r *[]int) (*[]int, error) { return r, nil }))
	serve(t, m, "svc.count", endpoint.NewServerStream(func(_ context.Context, r *number) iter.Seq2[*number, error] {
		return count(context.Background(), &number{max(0, min(r.N, 12))})
	}, endpoint.ReadOnly()))
	serve(t, m, "svc.total", endpoint.NewClientStream(func(ctx context.Context, in iter.Seq2[*number, error]) (*number, error) {
		return &number{}, drained(in)
	}))
	serve(t, m, "svc.double", endpoint.NewBidiStream(func(ctx context.Context, in iter.Seq2[*number, error]) iter.Seq2[*number, error] {
		return func(yield func(*number, error) bool) {
			if err := drained(in); err != nil {
				yield(nil, err)
				return
			}
			yield(&number{}, nil)
		}
	}))
	serve(t, m, "svc.admin", endpoint.New(func(context.Context, *nothing) (*nothing, error) { return &nothing{}, nil }))
	return m
}

func drained(in iter.Seq2[*number, error]) error {
	for _, err := range in {
		if err != nil {
			return err
		}
	}
	return nil
}

// duplex is a ResponseWriter of HTTP/1.1 that can do what a server's can.
type duplex struct{ *httptest.ResponseRecorder }

func (duplex) EnableFullDuplex() error { return nil }

// requests are seeds: one for each way of asking, and some that go astray.
func requests() []string {
	const auth = " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
	post := func(path, mediaType, body, more string) string {
		return "POST " + path + auth + "Content-Type: " + mediaType + "\r\n" + more + "\r\n" + body
	}
	seeds := []string{
		post("/svc/add", "application/json", `{"a":1,"b":2}`, ""),
		post("/svc.add", "application/json; charset=utf-8", `{"a":1}`, "Connect-Protocol-Version: 1\r\nConnect-Timeout-Ms: 1000\r\nAccept-Encoding: gzip\r\n"),
		post("/svc/add", "application/json", zip(`{"a":1}`), "Content-Encoding: gzip\r\n"),
		post("/svc/add", "application/cbor", "\xa1aa\x01", ""),
		post("/svc/add", "application/connect+json", "\x00\x00\x00\x00\x07{\"a\":1}", "Connect-Protocol-Version: 1\r\n"),
		post("/svc/add", "application/x-ndjson", "{}\n{}\n", "Accept: application/x-ndjson\r\n"),
		post("/svc/add", "application/json", "{}", "Accept: text/event-stream\r\nLast-Event-ID: 7\r\n"),
		post("/svc/add", "application/grpc+proto", "\x00\x00\x00\x00\x00", "Te: trailers\r\nGrpc-Timeout: 1S\r\n"),
		post("/svc/add", "application/grpc-web-text", "AAAAAAA=", "X-Grpc-Web: 1\r\n"),
		post("/rpc", "application/json", `[{"jsonrpc":"2.0","id":1,"method":"svc.add","params":[1,2]},{"jsonrpc":"2.0","method":"svc.get"},{"id":null}]`, ""),
		post("/rpc", "application/json", `{"jsonrpc":"2.0","id":"x","method":"svc.list","params":[1,2]}`, ""),
		post("/svc/count", "application/connect+json", enveloped(frame{0, `{"n":3}`}), "Connect-Protocol-Version: 1\r\n"),
		post("/svc/count", "application/json", `{"n":3}`, "Accept: text/event-stream\r\n"), post("/svc/count", "application/json", `{"n":3}`, "Accept: application/jsonl\r\n"),
		post("/svc/total", "application/connect+json", enveloped(frame{0, `{"n":3}`}, frame{1, zip(`{"n":4}`)}), "Connect-Content-Encoding: gzip\r\nConnect-Accept-Encoding: gzip\r\n"),
		post("/svc/total", "application/x-ndjson", "{\"n\":1}\n\n{\"n\":2}", ""), post("/svc/double", "application/x-ndjson", "{\"n\":1}\n", "Accept: text/event-stream\r\n"),
		post("/svc/double", "application/connect+cbor", enveloped(frame{0, "\xa1an\x01"}), "Connect-Timeout-Ms: 500\r\n"),
		"GET /svc/count?message=%7B%22n%22%3A2%7D" + auth + "Accept: text/event-stream\r\n\r\n",
		post("/svc/list", "application/json", `[1,2,3]`, "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n"),
		post("/svc/admin", "application/json", `{}`, ""),
		post("/v1/add/1?b=2", "application/json", `{}`, ""),
		"PUT /v1/add/1" + auth + "Content-Type: application/json\r\n\r\n{\"b\":2}",
		"GET /v1/add/1/2?c=3" + auth + "If-None-Match: \"x\", *\r\n\r\n",
		"HEAD /v1/add/-1/9007199254740993" + auth + "\r\n",
		"GET /svc/get?connect=v1&encoding=json&message=%7B%22id%22%3A1%7D" + auth + "\r\n",
		"GET /svc/get?connect=v1&encoding=json&base64=1&compression=gzip&message=e30" + auth + "\r\n",
		"GET /openapi.json?v=3.2" + auth + "\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /readyz HTTP/1.0\r\n\r\n",
		"OPTIONS /svc/add HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a, b c\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "POST http://y/svc/add" + auth + "\r\n",
	}
	for _, path := range hostile {
		seeds = append(seeds, post(path, "application/json", "{}", ""))
	}
	for _, body := range bodies() {
		if len(body) < 1000 {
			seeds = append(seeds, post("/svc/add", "application/json", body, ""), post("/rpc", "application/json", body, ""))
		}
	}
	return seeds
}

// FuzzBridge sends whole HTTP requests to a bridge with all its options. Behind it nothing ever fails, so nothing that a client
// sends may make it answer 5xx, but for the two that clients ask for: an encoding that nobody knows (501), and a
// deadline that can't be kept (504). It panics never, and what it says is never half a JSON.
func FuzzBridge(f *testing.F) {
	for _, r := range requests() {
		head, body, _ := strings.Cut(r, "\r\n\r\n")
		f.Add(head, []byte(body), false)
		f.Add(head, []byte(body), true)
	}
	a := &alarm{}
	b := httpbridge.New(blameless(f), append(everything(), httpbridge.WithLogger(slog.New(a)))...)
	assert.NoError(f, b.Err())
	f.Fuzz(func(t *testing.T, head string, body []byte, h2 bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
		if err != nil {
			return // net/http answers for itself
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body)) // its framing is net/http's business, too
		if r.TransferEncoding != nil {
			r.ContentLength = -1
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if r = r.WithContext(ctx); h2 {
			r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		}
		r.RemoteAddr = "192.0.2.1:1"
		a.t = t
		w := httptest.NewRecorder()
		b.ServeHTTP(duplex{w}, r)
		switch {
		case w.Code < 500:
		case w.Code == 501 && strings.Contains(w.Body.String(), "unknown content encoding"):
		case w.Code == 504 && r.Header["Connect-Timeout-Ms"] != nil:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Encoding") == "" && w.Header().Get("Content-Type") == "application/json" && w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d: half a JSON: %q", w.Code, w.Body)
		}
		for name, values := range w.Header() {
			for _, v := range values {
				if strings.ContainsAny(name+v, "\r\n\x00") {
					t.Errorf("header %q: %q", name, v)
				}
			}
		}
	})
}
