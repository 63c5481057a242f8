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
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestListenAndServe(t *testing.T) {
	type message struct{ Text string }
	m := endpoint.NewMux()
	entered, leave := make(chan struct{}), make(chan struct{})
	assert.NoError(t, m.Serve("svc.slow", endpoint.New(func(_ context.Context, r *message) (*message, error) {
		close(entered)
		<-leave
		return r, nil
	})))
	addr := freeAddr(t)
	b := httpbridge.New(m, httpbridge.Expose("svc.slow"))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.ListenAndServe(ctx, addr) }()

	client := &http.Client{Transport: new(http.Transport)}
	t.Cleanup(client.CloseIdleConnections)
	assert.Eventually(t, func() bool {
		resp, err := client.Get("http://" + addr + "/healthz")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, "it listens")

	replies := make(chan string, 1)
	go func() {
		resp, err := client.Post("http://"+addr+"/svc/slow", "application/json", strings.NewReader(`{"Text":"hi"}`))
		if err != nil {
			replies <- err.Error()
			return
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		replies <- string(text)
	}()
	<-entered
	stop()
	assert.Eventually(t, func() bool {
		resp, err := client.Get("http://" + addr + "/readyz")
		return err != nil || resp.Body.Close() == nil && resp.StatusCode == http.StatusServiceUnavailable
	}, "it drains")
	close(leave)
	assert.Equal(t, <-replies, `{"Text":"hi"}`, "what ran finishes")
	assert.NoError(t, <-ended)
}

func TestListenAndServeTellsWhyNot(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	defer func() { _ = l.Close() }()
	err = httpbridge.New(endpoint.NewMux()).ListenAndServe(t.Context(), l.Addr().String())
	assert.True(t, err != nil, "the port is taken")
	assert.Contains(t, err.Error(), l.Addr().String())

	err = httpbridge.New(endpoint.NewMux(), httpbridge.Expose("svc..add")).ListenAndServe(t.Context(), "127.0.0.1:0")
	assert.True(t, err != nil, "the bridge has faults")
	assert.Contains(t, err.Error(), "svc..add")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	assert.NoError(t, l.Close())
	return l.Addr().String()
}

// TestListenAndServe_idleConnections ends well whatever connections are open that carry no call: http.Server.Shutdown takes
// those for busy.
func TestListenAndServe_idleConnections(t *testing.T) {
	t.Parallel()
	send := func(text string) func(*testing.T, string) {
		return func(t *testing.T, addr string) {
			t.Helper()
			c, err := net.Dial("tcp", addr)
			assert.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			_, err = io.WriteString(c, text)
			assert.NoError(t, err)
		}
	}
	for name, connect := range map[string]func(*testing.T, string){
		"fresh":         send(""),
		"half a header": send("GET /hea"),
		"HTTP/2 begun":  send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"HTTP/2 idle": func(t *testing.T, addr string) {
			t.Helper()
			resp, err := h2c(t).Post("http://"+addr+"/svc/add", "application/json", strings.NewReader(`{}`))
			assert.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			assert.NoError(t, errors.Join(err, resp.Body.Close()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := httpbridge.New(newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
			addr := freeAddr(t)
			server := b.Server(addr)
			accepted := make(chan net.Conn, 9)
			server.ConnState = func(c net.Conn, s http.ConnState) {
				if s == http.StateNew {
					accepted <- c
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx, server) }()
			awaitListener(t, addr)
			<-accepted
			connect(t, addr)
			<-accepted
			stop()
			assert.NoError(t, <-ended)
		})
	}
}

// awaitListener leaves no connection.
func awaitListener(t *testing.T, addr string) {
	t.Helper()
	assert.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		return err == nil && c.Close() == nil
	}, "it listens")
}

func TestRun_besideOthers(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			b := httpbridge.New(newMux(t), httpbridge.Expose("svc.add"), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
			server := b.Server(freeAddr(t))
			mux := http.NewServeMux()
			mux.Handle("/", b)
			mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1") })
			server.Handler = mux
			url, client := "http://"+server.Addr, &http.Client{Transport: new(http.Transport)}
			if secure {
				model := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
				defer model.Close()
				server.TLSConfig, client, url = model.TLS.Clone(), model.Client(), "https://"+server.Addr
			}
			defer client.CloseIdleConnections()
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx, server) }()
			awaitListener(t, server.Addr)
			for path, want := range map[string]string{"/svc/add": `{"sum":1}`, "/metrics": "up 1"} {
				resp, err := client.Post(url+path, "application/json", strings.NewReader(`{"a":1}`))
				assert.NoError(t, err)
				text, err := io.ReadAll(resp.Body)
				assert.NoError(t, errors.Join(err, resp.Body.Close()))
				assert.Equal(t, string(text), want)
			}
			stop()
			assert.NoError(t, <-ended)
		})
	}
}

func TestRun_serverFails(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
	server := b.Server(freeAddr(t))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(t.Context(), server) }()
	awaitListener(t, server.Addr)
	assert.NoError(t, server.Close())
	assert.ErrorIs(t, <-ended, http.ErrServerClosed)
}
