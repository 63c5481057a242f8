package bustest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// The whole house at once: HTTP, bridge, middleware, bus, broker.

type addRequest struct{ A, B int }

type addResponse struct {
	Sum int `json:"sum"`
}

func add(_ context.Context, r *addRequest) (*addResponse, error) {
	return &addResponse{Sum: r.A + r.B}, nil
}

func bridge(t *testing.T, b *bus.Bus, opts ...httpbridge.Option) string {
	t.Helper()
	br := httpbridge.New(b, opts...)
	assert.NoError(t, br.Err())
	s := httptest.NewServer(br)
	t.Cleanup(s.Close)
	return s.URL
}

func post(t *testing.T, url, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	assert.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	return resp.StatusCode, string(text)
}

// quickest returns the shortest of a few tries: what the code needs, without what the machine does besides.
func quickest(try func()) time.Duration {
	best := time.Hour
	for range 5 {
		start := time.Now()
		try()
		best = min(best, time.Since(start))
	}
	return best
}

func TestFromHTTPToHandler(t *testing.T) {
	b := alone(t)
	b.Use(middleware.Recover())
	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	url := bridge(t, b, httpbridge.Expose("svc.add"))

	code, body := post(t, url+"/svc/add", `{"a":1,"b":2}`)
	assert.Equal(t, code, 200)
	assert.Equal(t, body, `{"sum":3}`)

	code, body = post(t, url+"/svc/add", `{"a":"one"}`)
	assert.Equal(t, code, 400)
	assert.Contains(t, body, "invalid_argument", `field \"A\"`, "offset")
}

func TestStoppedServiceIs503AtOnce(t *testing.T) {
	b := alone(t)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	url := bridge(t, b, httpbridge.Expose("svc.add"))
	assert.NoError(t, b.Stop(t.Context(), "svc.add"))

	took := quickest(func() {
		code, body := post(t, url+"/svc/add", `{"a":1,"b":2}`)
		assert.Equal(t, code, 503)
		assert.Contains(t, body, `"code":"unavailable"`)
	})
	assert.True(t, took < 50*time.Millisecond, "503 in under 50 ms, took", took.String())
}

// Row 1, with Retry: one quick retry, then the error.
func TestRow01WithRetry(t *testing.T) {
	b := alone(t)
	sum := endpoint.Caller[*addRequest, *addResponse](b, "svc.add", middleware.Retry(middleware.RetryPolicy{}))
	took := quickest(func() {
		_, err := sum(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.Unavailable)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
	})
	assert.True(t, took < 50*time.Millisecond, "under 50 ms, took", took.String())
}

// Row 2: the service has just subscribed, the caller is on another node. The quick retry hides it.
func TestRow02JustSubscribedOnAnotherNode(t *testing.T) {
	c, err := embedded.StartCluster(3)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	service, caller := connect(t, c.Server(0)), connect(t, c.Server(1))
	retry := middleware.Retry(middleware.RetryPolicy{})
	for i := range 50 {
		subject := "svc.add" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		assert.NoError(t, service.Serve(subject, endpoint.New(add)))
		reply, err := endpoint.Caller[*addRequest, *addResponse](caller, subject, retry)(t.Context(), &addRequest{A: i})
		assert.NoError(t, err)
		assert.Equal(t, reply.Sum, i)
	}
}

func TestDeadlineTravelsFromHTTPToHandler(t *testing.T) {
	b := alone(t)
	left := make(chan time.Duration, 1)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
		d, ok := ctx.Deadline()
		if !ok {
			return nil, endpoint.Internal.New("no deadline")
		}
		left <- time.Until(d)
		return &addResponse{}, nil
	})))
	url := bridge(t, b, httpbridge.Expose("svc.add"))
	code, body := post(t, url+"/svc/add", `{}`, "Connect-Timeout-Ms", "3000")
	assert.Equal(t, code, 200, body)
	got := <-left
	assert.True(t, got > 0 && got <= 3*time.Second, "the handler has what is left, got", got.String())
}

// Row 22: a header that makes the broker trace a message instead of delivering it must not come in from outside.
func TestRow22TraceOnlyIsStripped(t *testing.T) {
	b := alone(t)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	url := bridge(t, b, httpbridge.Expose("svc.add"))
	code, body := post(t, url+"/svc/add", `{"a":1,"b":2}`, "Nats-Trace-Only", "true", "Nats-Trace-Dest", "evil", "Rpc-Timeout", "1n")
	assert.Equal(t, code, 200, body)
	assert.Equal(t, body, `{"sum":3}`)
}

// Row 19, from outside: no path closes the connection that everybody shares.
func TestHostilePathsLeaveTheConnectionAlone(t *testing.T) {
	b := alone(t)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	url := bridge(t, b, httpbridge.Expose("svc.>"))
	for _, path := range []string{
		"/svc/" + strings.Repeat("a", 5000), "/svc/*", "/svc/>", "/svc/%3E", "/svc//add", "/svc/a%20b", "/svc/a%0d%0ab",
		"/$SYS/REQ", "/$JS/API/INFO", "/_INBOX/x", "/svc/../$SYS", "/svc/%2e%2e/add", "/svc/~f",
	} {
		code, body := post(t, url+path, `{}`)
		assert.True(t, code >= 400 && code < 500, path, body)
	}
	code, _ := post(t, url+"/svc/add", `{"a":1,"b":2}`)
	assert.Equal(t, code, 200)
	assert.Equal(t, b.Conn().Stats().Reconnects, uint64(0))
}

func TestReadiness(t *testing.T) {
	s := bustest.Server(t)
	b := connect(t, s)
	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	url := bridge(t, b, httpbridge.Expose("svc.add"))
	ready := func() int {
		resp, err := http.Get(url + "/readyz")
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	assert.Equal(t, ready(), 200)
	s.Shutdown()
	assert.Eventually(t, func() bool { return ready() == 503 }, "not ready without a broker")
	assert.NoError(t, s.Restart())
	assert.Eventually(t, func() bool { return ready() == 200 }, "ready again")
}
