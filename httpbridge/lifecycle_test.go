package httpbridge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestHealth(t *testing.T) {
	s := start(t, newMux(t))
	for _, path := range []string{"/healthz", "/readyz"} {
		r := s.do(t, "GET", path, "")
		assert.Equal(t, r.status, 200)
		assert.Equal(t, r.body, "{\"status\":\"ok\"}\n")
		assert.Equal(t, r.header.Get("Cache-Control"), "no-store")
		assert.Equal(t, s.do(t, "HEAD", path, "").status, 200)
		r = s.post(t, path, `{}`)
		failed(t, r, 405, endpoint.Unknown)
		assert.Equal(t, r.header.Get("Allow"), "GET, HEAD")
	}
}

type readiness struct {
	script
	err error
}

func (r readiness) Ready(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("not bounded")
	}
	return r.err
}

func TestReady(t *testing.T) {
	assert.Equal(t, start(t, readiness{}).do(t, "GET", "/readyz", "").status, 200)
	assert.Equal(t, start(t, script{}).do(t, "GET", "/readyz", "").status, 200)
	s := start(t, readiness{err: endpoint.Unavailable.New("secret").WithReason(endpoint.ReasonDisconnected)})
	r := s.do(t, "GET", "/readyz", "")
	assert.Equal(t, failed(t, r, 503, endpoint.Unavailable), "the transport is not ready")
	assert.Equal(t, r.header.Get("Retry-After"), "1")
	assert.Equal(t, s.do(t, "GET", "/healthz", "").status, 200)
	assert.Contains(t, s.log.text(), "status=503")
}

func TestDrain(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.*"))
	running := make(chan reply, 1)
	go func() { running <- s.post(t, "/svc/block", `{}`) }()
	<-block.entered
	drained := make(chan error, 2)
	for range 2 {
		go func() { drained <- s.bridge.Drain(context.Background()) }()
	}
	assert.Eventually(t, func() bool { return s.do(t, "GET", "/readyz", "").status == 503 })
	r := s.post(t, "/svc/add", `{}`)
	failed(t, r, 503, endpoint.Unavailable)
	assert.Equal(t, r.header.Get("Retry-After"), "1")
	assert.Equal(t, s.do(t, "GET", "/healthz", "").status, 200)
	status, err := raw(s, "POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	assert.NoError(t, err)
	assert.Equal(t, status, 503)
	select {
	case err := <-drained:
		t.Fatal("drained while a call ran", err)
	default:
	}
	close(block.release)
	assert.Equal(t, (<-running).status, 200) // finished, not cut off
	for range 2 {
		assert.NoError(t, <-drained)
	}
	assert.NoError(t, s.bridge.Drain(t.Context()))
}

func TestDrain_gaveUp(t *testing.T) {
	m := newMux(t)
	block := newBlocker()
	serve(t, m, "svc.block", endpoint.New(block.run))
	s := start(t, m, httpbridge.Expose("svc.*"))
	running := make(chan reply, 1)
	go func() { running <- s.post(t, "/svc/block", `{}`) }()
	<-block.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.bridge.Drain(ctx)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Contains(t, err.Error(), "1 calls")
	assert.ErrorIs(t, <-block.cause, context.Canceled)
	r := <-running
	failed(t, r, 503, endpoint.Unavailable)
	assert.NoError(t, s.bridge.Drain(t.Context()))
}

func TestDrain_closesConnections(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.add"))
	assert.NoError(t, s.bridge.Drain(t.Context()))
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	assert.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("POST /svc/add HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
	assert.NoError(t, err)
	all, err := io.ReadAll(c) // ends because the server hangs up
	assert.NoError(t, err)
	assert.Contains(t, string(all), "503 Service Unavailable", "Connection: close")
}

func TestFaults(t *testing.T) {
	b := httpbridge.New(nil, nil,
		httpbridge.Expose("", "a..b", "a.>.b", "$SYS.>", "a.$b", "_INBOX.>", "a._INBOX.b", "x y", "a\u00a0b", "a*"),
		httpbridge.WithLimits(httpbridge.Limits{Body: -1}),
		httpbridge.WithTimeouts(httpbridge.Timeouts{Call: time.Minute, MaxCall: time.Second, Idle: -1}),
		httpbridge.WithAuth(nil),
		httpbridge.WithHeaders([]string{"Cookie"}, nil),
		httpbridge.WithLogger(nil),
	)
	assert.Contains(t, b.Err().Error(), "nil option", "transport is nil", "subject is empty", "a..b", "a.>.b", "$SYS.>", "a.$b", "_INBOX.>",
		"a._INBOX.b", "x y", `a\u00a0b`, "a*", "WithLimits", "1m0s for a call is over its maximum of 1s", "-1ns is negative", "WithAuth", "Cookie", "WithLogger")
	s := start(t, newMux(t))
	s.Config.Handler = b
	for _, path := range []string{"/healthz", "/readyz", "/svc/add"} {
		assert.Equal(t, failed(t, s.post(t, path, `{}`), 500, endpoint.Internal), "")
	}
	assert.NoError(t, b.Drain(t.Context()))

	var none *endpoint.Mux
	assert.Contains(t, httpbridge.New(none).Err().Error(), "transport is nil")
	allow := func(r *http.Request) (context.Context, error) { return r.Context(), nil }
	deny := func(*http.Request) (context.Context, error) { return nil, endpoint.Unauthenticated }
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithAuth(allow), httpbridge.WithAuth(deny)).Err().Error(), "twice")
	assert.NoError(t, httpbridge.New(newMux(t)).Err())
}

func TestServer(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.Expose("svc.add"))
	server := b.Server("127.0.0.1:0")
	for _, d := range []time.Duration{server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout, server.IdleTimeout} {
		assert.True(t, d > 0)
	}
	l, err := net.Listen("tcp", server.Addr)
	assert.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	for _, client := range []*http.Client{h2c(t), {Transport: &http.Transport{DisableKeepAlives: true}}} {
		resp, err := client.Post("http://"+l.Addr().String()+"/svc/add", "application/json", strings.NewReader(`{"a":1}`))
		assert.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
		assert.Equal(t, string(body), `{"sum":1}`)
		client.CloseIdleConnections()
	}
	assert.NoError(t, b.Drain(t.Context()))
	assert.NoError(t, server.Shutdown(t.Context()))
	assert.ErrorIs(t, <-done, http.ErrServerClosed)
}

// TestDrain_gaveUpEarly ends what did not become a call yet: authentication, and a body that does not come.
func TestDrain_gaveUpEarly(t *testing.T) {
	entered := make(chan struct{}, 1)
	for name, auth := range map[string]func(*http.Request) (context.Context, error){
		"authentication": func(r *http.Request) (context.Context, error) {
			entered <- struct{}{}
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"the body": func(r *http.Request) (context.Context, error) {
			entered <- struct{}{}
			return context.Background(), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithAuth(auth))
			answer := make(chan int, 1)
			go func() {
				status, _ := raw(s, stuck+"\r\n{")
				answer <- status
			}()
			<-entered
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.Contains(t, s.bridge.Drain(ctx).Error(), "1 calls")
			assert.Equal(t, <-answer, 503)
			assert.Contains(t, s.log.text(), "draining")
		})
	}
}

// TestReady_shared keeps whoever asks often from making the bus busy: everybody may ask.
func TestReady_shared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, running atomic.Int64
		fault := errors.New("not yet")
		b := httpbridge.New(inquiry(func(ctx context.Context) error {
			asked.Add(1)
			assert.Equal(t, running.Add(1), 1)
			defer running.Add(-1)
			time.Sleep(100 * time.Millisecond)
			return fault
		}), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
		ask := func(want int) {
			w := httptest.NewRecorder()
			b.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
			assert.Equal(t, w.Code, want)
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { ask(503) })
		}
		all.Wait()
		assert.Equal(t, asked.Load(), 1)
		fault = nil
		ask(503)
		assert.Equal(t, asked.Load(), 1, "it still counts")
		time.Sleep(250 * time.Millisecond)
		ask(200)
		assert.Equal(t, asked.Load(), 2)
	})
}

// TestReady_stuck lets nobody wait longer than the question itself may take, and nobody's leaving end it for others.
func TestReady_stuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := httpbridge.New(inquiry(func(ctx context.Context) error {
			time.Sleep(time.Second)
			return ctx.Err()
		}), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
		ask := func(ctx context.Context, want int) {
			w := httptest.NewRecorder()
			b.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", http.NoBody))
			assert.Equal(t, w.Code, want)
		}
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { ask(ctx, 200) })
		synctest.Wait()
		all.Go(func() { ask(t.Context(), 200) })
		gone, start := make(chan struct{}), time.Now()
		go func() {
			ask(ctx, 499)
			close(gone)
		}()
		synctest.Wait()
		leave()
		<-gone
		assert.True(t, time.Since(start) == 0, "who leaves does not wait")
		all.Wait()
	})
}

// inquiry is a transport that is ready when a function says so.
type inquiry func(context.Context) error

func (i inquiry) Ready(ctx context.Context) error { return i(ctx) }

func (inquiry) Handler(string, *endpoint.Spec) endpoint.Handler { return nil }
