package grpcbridge_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	text   = wrapperspb.StringValue
	number = wrapperspb.Int64Value
)

// newMux serves one endpoint of each kind: acme.Words.Upper, .Letters, .Join and .Each.
func newMux(t testing.TB) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(endpoint.MuxCodecs(protobuf.JSON, protobuf.Binary))
	serve(t, m, "acme.Words.Upper", endpoint.New(upper))
	serve(t, m, "acme.Words.Letters", endpoint.NewServerStream(endpoint.Emit(letters)))
	serve(t, m, "acme.Words.Join", endpoint.NewClientStream(join))
	serve(t, m, "acme.Words.Each", endpoint.NewBidiStream(endpoint.Emit(each)))
	return m
}

func serve(t testing.TB, m *endpoint.Mux, subject string, ep *endpoint.Endpoint) {
	t.Helper()
	assert.NoError(t, m.Serve(subject, ep))
}

// meta tells what came, and sends two of each metadata back.
func meta(ctx context.Context) {
	c := endpoint.FromContext(ctx)
	for _, v := range c.Header.Values("X-In") {
		c.Reply.Add("X-Out", v)
	}
	c.Reply.Add("X-Secret", "hidden")
	c.Trailer.Add("X-End", "one")
	c.Trailer.Add("X-End", "two")
	c.Trailer.Add("X-Sum-Bin", "AAE")
}

func upper(ctx context.Context, r *text) (*text, error) {
	meta(ctx)
	if err := unlucky(r); err != nil {
		return nil, err
	}
	return wrapperspb.String(strings.ToUpper(r.GetValue())), nil
}

// unlucky fails for some words.
func unlucky(r *text) error {
	switch r.GetValue() {
	case "thirteen":
		detail := endpoint.Detail{Type: "google.protobuf.StringValue", Value: []byte("\x0a\x02no")}
		return endpoint.FailedPrecondition.New("13 is unlucky: ü\n").With(detail, quota{5}).WithRetryAfter(1500 * 1e6)
	case "internal":
		return fmt.Errorf("a secret")
	}
	return nil
}

type quota struct{ Left int }

func letters(ctx context.Context, r *text, send func(*text) error) error {
	meta(ctx)
	for _, c := range r.GetValue() {
		if c == '!' {
			return unlucky(wrapperspb.String("thirteen"))
		}
		if err := send(wrapperspb.String(string(c))); err != nil {
			return err
		}
	}
	return nil
}

func join(ctx context.Context, in iter.Seq2[*text, error]) (*text, error) {
	meta(ctx)
	var all []string
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		if r.GetValue() == "enough" {
			break
		}
		if err := unlucky(r); err != nil {
			return nil, err
		}
		all = append(all, r.GetValue())
	}
	return wrapperspb.String(strings.Join(all, " ")), nil
}

func each(ctx context.Context, in iter.Seq2[*text, error], send func(*number) error) error {
	meta(ctx)
	for r, err := range in {
		if err != nil {
			return err
		}
		if err := unlucky(r); err != nil {
			return err
		}
		if err := send(wrapperspb.Int64(int64(len(r.GetValue())))); err != nil {
			return err
		}
	}
	return nil
}

// site is a bridge under a server that speaks h2c.
type site struct {
	*httptest.Server
	bridge *httpbridge.Bridge
	log    *journal
}

func start(t testing.TB, tr endpoint.Transport, opts ...httpbridge.Option) *site {
	t.Helper()
	s := &site{log: &journal{}}
	opts = append([]httpbridge.Option{
		httpbridge.Expose("acme.>"), httpbridge.WithLogger(slog.New(s.log)), grpcbridge.Enable(),
		httpbridge.WithHeaders([]string{"X-In"}, []string{"X-Out", "X-End", "X-Sum-Bin"}),
	}, opts...)
	s.bridge = httpbridge.New(tr, opts...)
	assert.NoError(t, s.bridge.Err())
	s.Server = httptest.NewUnstartedServer(s.bridge)
	s.Config.Protocols = s.bridge.Server("").Protocols
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// http1 and http2 are clients of one version each.
func http1(t testing.TB) *http.Client {
	t.Helper()
	return client(t, func(p *http.Protocols) { p.SetHTTP1(true) })
}

func http2(t testing.TB) *http.Client {
	t.Helper()
	return client(t, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
}

func client(t testing.TB, speak func(*http.Protocols)) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	speak(tr.Protocols)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// dial makes a client of the four endpoints' types.
func dial[Req, Resp any](s *site, method string, h *http.Client, opts ...connect.ClientOption) *connect.Client[Req, Resp] {
	return connect.NewClient[Req, Resp](h, s.URL+"/acme.Words/"+method, opts...)
}

// refused asserts an error that a client sees.
func refused(t testing.TB, err error, code connect.Code, words ...string) *connect.Error {
	t.Helper()
	e, ok := errors.AsType[*connect.Error](err)
	assert.True(t, ok, fmt.Sprint(err))
	assert.Equal(t, e.Code(), code, e.Error())
	assert.Contains(t, e.Message(), words...)
	return e
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

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.records...)
}
