package httpbridge_test

import (
	"context"
	"io"
	"net"
	"net/http"
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
