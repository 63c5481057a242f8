package httpbridge_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestBodyLimit(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.echo"))
	most := strings.Repeat("x", 1<<20)
	assert.Equal(t, len(s.post(t, "/svc/echo", most).body), 1<<20)
	for _, body := range []io.Reader{
		strings.NewReader(most + "x"),
		struct{ io.Reader }{strings.NewReader(most + "x")}, // chunked
		struct{ io.Reader }{strings.NewReader(most + most)},
	} {
		r, err := http.NewRequest(http.MethodPost, s.URL+"/svc/echo", body)
		assert.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		assert.Contains(t, failed(t, s.send(t, r), 413, endpoint.ResourceExhausted), "1048576")
	}
}

func TestHeaderLimit(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	assert.Equal(t, s.post(t, "/svc/add", `{}`, "X-Big", strings.Repeat("x", 7<<10)).status, 200)
	failed(t, s.post(t, "/svc/add", `{}`, "X-Big", strings.Repeat("x", 9<<10)), 431, endpoint.InvalidArgument)
	many := []string{}
	for range 300 {
		many = append(many, "X-Small", strings.Repeat("x", 30))
	}
	failed(t, s.post(t, "/svc/add", `{}`, many...), 431, endpoint.InvalidArgument)
}

func TestConcurrencyLimit(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{Concurrent: 3}))
	replies := make(chan reply, 3)
	for range 3 {
		go func() { replies <- s.post(t, "/svc/block", `{}`) }()
	}
	for range 3 {
		<-block.entered
	}
	for range 5 {
		r := s.post(t, "/svc/add", `{}`)
		assert.Contains(t, failed(t, r, 429, endpoint.ResourceExhausted), "limit")
		assert.Equal(t, r.header.Get("Retry-After"), "1")
	}
	assert.Equal(t, s.do(t, "GET", "/healthz", "").status, 200)
	close(block.release)
	for range 3 {
		assert.Equal(t, (<-replies).status, 200)
	}
	assert.Equal(t, s.post(t, "/svc/add", `{}`).status, 200)
}

func TestConnectionLimit(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	b := httpbridge.New(m, httpbridge.Expose("svc.*"), httpbridge.WithLimits(httpbridge.Limits{PerConnection: 2}))
	server := httptest.NewUnstartedServer(b)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()

	one, two := &site{Server: server, bridge: b, client: h2c(t)}, &site{Server: server, bridge: b, client: h2c(t)}
	replies := make(chan reply, 2)
	for range 2 {
		go func() { replies <- one.post(t, "/svc/block", `{}`) }()
	}
	for range 2 {
		<-block.entered
	}
	assert.Contains(t, failed(t, one.post(t, "/svc/add", `{}`), 429, endpoint.ResourceExhausted), "connection")
	assert.Equal(t, two.post(t, "/svc/add", `{}`).status, 200) // a connection of its own
	close(block.release)
	for range 2 {
		assert.Equal(t, (<-replies).status, 200)
	}
	assert.Equal(t, one.post(t, "/svc/add", `{}`).status, 200)
}

func h2c(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestSlowBody(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 20 * time.Millisecond}))
	status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	assert.NoError(t, err)
	assert.Equal(t, status, 408)

	// The bound is the body's alone: a call may take longer, and so may the next one on the connection.
	m := newMux(t)
	serve(t, m, "svc.slow", endpoint.New(func(ctx context.Context, _ *nothing) (*nothing, error) {
		timer := time.NewTimer(60 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
			return &nothing{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}))
	s = start(t, m, httpbridge.Expose("svc.slow"), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 20 * time.Millisecond, Write: 20 * time.Millisecond}))
	for range 3 {
		assert.Equal(t, s.post(t, "/svc/slow", `{}`).status, 200)
		assert.Equal(t, s.post(t, "/svc/slow", ``).status, 200)
	}
}

func TestLeavingWithinTheBody(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	assert.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"))
	assert.NoError(t, err)
	assert.NoError(t, c.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	assert.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, resp.StatusCode, 499)
	assert.Contains(t, s.log.text(), "DEBUG", "status=499")

	status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	assert.NoError(t, err)
	assert.Equal(t, status, 400)
}

// TestSlowBody_refused is answered although net/http wants to read a body to its end before it does; a body that is there
// does not cost its connection.
func TestSlowBody_refused(t *testing.T) {
	t.Parallel()
	deny := func(r *http.Request) (context.Context, error) { return nil, endpoint.Unauthenticated }
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithAuth(deny))
	drained := start(t, newMux(t), httpbridge.Expose("svc.add"))
	assert.NoError(t, drained.bridge.Drain(t.Context()))
	for name, tt := range map[string]struct {
		site   *site
		line   string
		status int
	}{
		"404":     {s, "POST /nope", 404},
		"401":     {s, "POST /svc/add", 401},
		"405":     {s, "PUT /svc/add", 405},
		"503":     {drained, "POST /svc/add", 503},
		"healthz": {s, "GET /healthz", 200},
		"readyz":  {s, "GET /readyz", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head := tt.line + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
			for _, framing := range []string{"Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n"} {
				status, err := raw(tt.site, head+framing)
				assert.NoError(t, err)
				assert.Equal(t, status, tt.status)
			}
		})
	}
	var reused bool
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/nope", strings.NewReader(`{}`))
		assert.NoError(t, err)
		failed(t, s.send(t, r), 404, endpoint.Unimplemented)
	}
	assert.True(t, reused, "the connection is kept")
}

// TestSlowBody_readByAuth is bounded although nobody else reads yet.
func TestSlowBody_readByAuth(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithTimeouts(httpbridge.Timeouts{Body: 20 * time.Millisecond}),
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			_, err := io.ReadAll(r.Body)
			return nil, err
		}))
	status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	assert.NoError(t, err)
	assert.Equal(t, status, 499, "net/http takes any fault of reading for a client that left")
}
