package auth_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type nothing struct{}

type reply struct {
	status int
	header http.Header
	body   string
}

// site is a bridge with svc.read, svc.write and svc.open under a real server.
type site struct {
	*httptest.Server
	ran chan *httpbridge.Identity // who was let in, by the calls that ran
}

func start(t testing.TB, opts ...httpbridge.Option) *site {
	t.Helper()
	s := &site{ran: make(chan *httpbridge.Identity, 100)}
	m := endpoint.NewMux()
	who := sync.OnceValue(func() *endpoint.Endpoint {
		return endpoint.New(func(context.Context, *nothing) (*nothing, error) { return &nothing{}, nil })
	})
	for _, subject := range []string{"svc.read", "svc.write", "svc.open"} {
		assert.NoError(t, m.Serve(subject, who()))
	}
	// What the context of a call has is seen where transports see it.
	m.Use(endpoint.OnClient(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			s.ran <- httpbridge.IdentityFrom(ctx)
			return next(ctx, c)
		}
	}))
	b := httpbridge.New(m, append(opts, httpbridge.Expose("svc.*"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))...)
	assert.NoError(t, b.Err())
	s.Server = httptest.NewServer(b)
	t.Cleanup(s.Close)
	return s
}

// post calls a path with headers, names and values in turn.
func (s *site) post(t testing.TB, path string, kv ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader(`{}`))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(kv); i += 2 {
		r.Header.Add(kv[i], kv[i+1])
	}
	resp, err := s.Client().Do(r)
	assert.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	return reply{resp.StatusCode, resp.Header, string(data)}
}

// in asserts that a call ran, and returns who called.
func (s *site) in(t testing.TB, r reply) *httpbridge.Identity {
	t.Helper()
	assert.Equal(t, r.status, 200, r.body)
	assert.Equal(t, len(s.ran), 1)
	return <-s.ran
}

// out asserts that a call was refused, and returns what was said.
func (s *site) out(t testing.TB, r reply, status int, what ...string) string {
	t.Helper()
	assert.Equal(t, r.status, status, append(what, r.body)...)
	assert.Equal(t, len(s.ran), 0, what...)
	var e endpoint.Error
	assert.NoError(t, json.Unmarshal([]byte(r.body), &e), r.body)
	return e.Message
}
