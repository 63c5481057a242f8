package bustest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// canary is a secret; nobody may sing it.
const canary = "c4n4ry-5ecret"

// shared is a buffer for several writers.
type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestSecretsStayWhereTheyAre sends a secret in headers, payloads, credentials and causes of errors through the whole house, from
// HTTP to a handler, and looks for it in everything that is written down or told to others.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	server := bustest.Server(t, embedded.WithUsers(embedded.User{Name: "svc", Password: canary}))
	log, spans, reg := &shared{}, tracetest.NewInMemoryExporter(), prometheus.NewRegistry()
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := middleware.Defaults{
		Log: logger, Metrics: metrics.New(reg), Tracing: tracing.New(trace.NewTracerProvider(trace.WithSyncer(spans)), nil),
		Retry: &middleware.RetryPolicy{}, Breaker: &middleware.BreakerPolicy{},
		Authenticate: func(ctx context.Context, c *endpoint.Call) (context.Context, error) {
			if c.Header.Get("Authorization") != "Bearer "+canary {
				return nil, fmt.Errorf("a wrong token: %s", c.Header.Get("Authorization"))
			}
			return ctx, nil
		},
	}
	url := strings.Replace(server.URL(), "nats://", "nats://svc:"+canary+"@", 1)
	b, err := bus.Connect(url, bus.WithLogger(logger))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	b.Use(middleware.Server(d), middleware.Client(d))

	type message struct{ Password string }
	fates := map[string]error{
		"ok": nil, "authored": endpoint.NotFound.Wrap(errors.New(canary), "no such user"), "plain": errors.New("can't log in with " + canary),
		"panic": nil,
	}
	for name, fate := range fates {
		assert.NoError(t, b.Serve("svc."+name, endpoint.New(func(context.Context, *message) (*message, error) {
			if name == "panic" {
				panic("at the disco")
			}
			return &message{canary}, fate
		})))
	}
	var told strings.Builder
	front := bridge(t, b, httpbridge.Expose("svc.*"), httpbridge.WithLogger(logger), httpbridge.WithHeaders([]string{"Authorization"}, nil))
	body := fmt.Sprintf(`{"Password":%q}`, canary)
	for name := range fates {
		for _, token := range []string{"Bearer " + canary, "Bearer x" + canary, ""} {
			ctx := t.Context()
			if token != "" {
				ctx = endpoint.WithHeader(ctx, "Authorization", token)
			}
			if _, err := endpoint.Caller[*message, *message](b, "svc."+name)(ctx, &message{canary}); err != nil {
				for e := err; e != nil; e = errors.Unwrap(e) {
					told.WriteString(e.Error() + "\n")
				}
			}
			code, reply := post(t, front+"/svc/"+name, body, "Authorization", token, "Cookie", canary)
			if code != 200 {
				told.WriteString(reply)
			}
		}
	}
	_, reply := post(t, front+"/svc/ok", `{"Password":`+canary, "Authorization", "Bearer "+canary)
	told.WriteString(reply)
	_, err = bus.Connect(strings.Replace(url, "svc:", "nobody:", 1), bus.WithLogger(logger))
	assert.True(t, err != nil, "a stranger")
	told.WriteString(err.Error())

	families, err := reg.Gather()
	assert.NoError(t, err)
	assert.True(t, len(families) > 0 && len(spans.GetSpans()) > 0 && strings.Contains(log.String(), "svc.plain"), "there is something to look at")
	for where, text := range map[string]string{
		"metrics": fmt.Sprint(families), "spans": fmt.Sprintf("%+v", spans.GetSpans()), "errors": told.String(),
	} {
		assert.True(t, !strings.Contains(text, canary), where+" are silent")
	}
	for line := range strings.Lines(log.String()) { // the log is for those who mend the service: it has causes, which are what the author wrote
		assert.True(t, !strings.Contains(line, canary) || strings.Contains(line, "can't log in with") || strings.Contains(line, "a wrong token"), line)
	}
}
