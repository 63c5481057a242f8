package httpbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addRequest struct {
	A int `json:"a"`
	B int `json:"b"`
}

type addResponse struct {
	Sum int `json:"sum"`
}

func add(_ context.Context, r *addRequest) (*addResponse, error) {
	if r.B == 13 {
		return nil, endpoint.FailedPrecondition.Errorf("%d is unlucky", r.B)
	}
	return &addResponse{Sum: r.A + r.B}, nil
}

// echo passes what it gets through, of any media type.
func echo(_ context.Context, p *codec.Payload) (*codec.Payload, error) { return p, nil }

type nothing struct{}

// newMux serves svc.add (JSON and CBOR), svc.echo (anything) and svc.ping (no fields).
func newMux(t testing.TB) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(endpoint.MuxCodecs(codec.JSON, cbor.CBOR))
	serve(t, m, "svc.add", endpoint.New(add))
	serve(t, m, "svc.echo", endpoint.New(echo))
	serve(t, m, "svc.ping", endpoint.New(func(context.Context, *nothing) (*nothing, error) { return &nothing{}, nil }))
	return m
}

func serve(t testing.TB, m *endpoint.Mux, subject string, ep *endpoint.Endpoint) {
	t.Helper()
	assert.NoError(t, m.Serve(subject, ep))
}

// site is a bridge under a real server.
type site struct {
	*httptest.Server
	bridge *httpbridge.Bridge
	client *http.Client
	log    *journal
}

func start(t testing.TB, tr endpoint.Transport, opts ...httpbridge.Option) *site {
	t.Helper()
	s := &site{log: &journal{}}
	s.bridge = httpbridge.New(tr, append(opts, httpbridge.WithLogger(slog.New(s.log)))...)
	assert.NoError(t, s.bridge.Err())
	s.Server = httptest.NewServer(s.bridge)
	s.client = s.Client()
	s.client.Transport.(*http.Transport).DisableCompression = true
	s.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute // who asks before sending waits for the answer
	t.Cleanup(s.Close)
	return s
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request; kv are names and values of headers.
func (s *site) do(t testing.TB, method, path, body string, kv ...string) reply {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	assert.NoError(t, err)
	r.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(kv); i += 2 {
		r.Header.Add(kv[i], kv[i+1])
	}
	return s.send(t, r)
}

func (s *site) send(t testing.TB, r *http.Request) reply {
	t.Helper()
	resp, err := s.client.Do(r)
	assert.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	assert.Equal(t, resp.Header.Get("X-Content-Type-Options"), "nosniff")
	return reply{resp.StatusCode, resp.Header, string(data)}
}

// post sends JSON.
func (s *site) post(t testing.TB, path, body string, kv ...string) reply {
	t.Helper()
	return s.do(t, http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, kv...)...)
}

// failed asserts an error reply and returns its message.
func failed(t testing.TB, r reply, status int, code endpoint.Code) string {
	t.Helper()
	assert.Equal(t, r.status, status, r.body)
	var e endpoint.Error
	assert.NoError(t, json.Unmarshal([]byte(r.body), &e), r.body)
	assert.Equal(t, e.Code, code, r.body)
	assert.Equal(t, codec.MediaType(r.header.Get("Content-Type")), "application/json")
	assert.Equal(t, r.header.Get("Cache-Control"), "no-store")
	return e.Message
}

// journal is a log that tests read.
type journal struct {
	mu      sync.Mutex
	records []string
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s", a)
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, b.String())
	return nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.records, "\n")
}

// blocker is an endpoint that says when it was entered, and runs until it is released or canceled.
type blocker struct {
	entered chan struct{}
	release chan struct{}
	cause   chan error
}

func newBlocker() *blocker {
	return &blocker{entered: make(chan struct{}, 64), release: make(chan struct{}), cause: make(chan error, 64)}
}

func (b *blocker) run(ctx context.Context, _ *nothing) (*nothing, error) {
	b.entered <- struct{}{}
	select {
	case <-b.release:
		return &nothing{}, nil
	case <-ctx.Done():
		b.cause <- errors.Join(context.Cause(ctx), ctx.Err())
		return nil, ctx.Err()
	}
}
