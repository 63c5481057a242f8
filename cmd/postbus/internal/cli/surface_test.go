package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestBridge_surface(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	b := startBridge(t, s, "--expose", "math.*", "--json-rpc", "/rpc", "--openapi-title", "Sums", "--cors-origin", "https://app.example")
	var doc struct {
		OpenAPI string
		Info    struct{ Title string }
		Paths   map[string]any
	}
	assert.Eventually(t, func() bool {
		status, text := b.do(t, http.MethodGet, "/openapi.json", "")
		return status == 200 && json.Unmarshal([]byte(text), &doc) == nil && len(doc.Paths) == 4
	}, "all endpoints are described")
	assert.Equal(t, []string{doc.OpenAPI, doc.Info.Title}, []string{"3.1.1", "Sums"})
	status, text := b.do(t, http.MethodPost, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"math.add","params":{"a":1,"b":2}}`)
	assert.Equal(t, []any{status, text}, []any{200, `{"jsonrpc":"2.0","id":1,"result":{"sum":3}}`})
	status, _ = b.do(t, http.MethodOptions, "/math/add", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	assert.Equal(t, status, http.StatusNoContent)
	status, text = b.do(t, http.MethodPost, "/math/count", `{"n":2}`, "Accept", "application/x-ndjson")
	assert.Equal(t, []any{status, text}, []any{200, "{\"result\":{\"n\":1}}\n{\"result\":{\"n\":2}}\n"})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/math/add", strings.NewReader("\x00\x00\x00\x00\x07{\"a\":5}"))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/grpc-web+json")
	status, text = b.send(t, r)
	assert.Equal(t, status, 200)
	assert.Contains(t, text, `{"sum":5}`, "grpc-status: 0")
	assert.Equal(t, b.stop(t), 0)
}

func TestBridge_surfaceOff(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math())
	b := startBridge(t, s, "--expose", "math.*", "--no-openapi", "--no-grpc")
	status, _ := b.do(t, http.MethodGet, "/openapi.json", "")
	assert.Equal(t, status, 404)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/math/add", strings.NewReader("\x00\x00\x00\x00\x00"))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/grpc-web")
	status, _ = b.send(t, r)
	assert.Equal(t, status, http.StatusUnsupportedMediaType)
	assert.Equal(t, b.stop(t), 0)

	r2 := run(t, []string{"bridge", "--expose", "a.b", "--no-openapi", "--openapi-public", "--cors-credentials", "--json-rpc", "rpc", "--shutdown-timeout", "1m"})
	assert.Equal(t, r2.code, 64)
	assert.Contains(t, r2.err, "--openapi-…: goes with --openapi", "--cors-…: needs --cors-origin", "--json-rpc: \"rpc\" is no plain path",
		"--shutdown-timeout: 1m0s is over 29s")
}

// TestBridge_shutdownOfStreams ends the bridge while a stream runs that never ends by itself: it gets its end, and its handler
// is told.
func TestBridge_shutdownOfStreams(t *testing.T) {
	t.Parallel()
	s := broker(t)
	left := make(chan struct{})
	serve(t, s, map[string]*endpoint.Endpoint{"endless.tick": endpoint.NewServerStream(endpoint.Emit(
		func(ctx context.Context, _ *struct{}, send func(*number) error) error {
			defer close(left)
			if err := send(&number{1}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}))})
	b := startBridge(t, s, "--expose", "endless.*", "--shutdown-timeout", "50ms")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/endless/tick", strings.NewReader("{}"))
	assert.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "text/event-stream")
	reply, err := b.client.Do(r)
	assert.NoError(t, err)
	events := bufio.NewReader(reply.Body)
	for line := ""; !strings.Contains(line, `"n":1`); {
		line, err = events.ReadString('\n')
		assert.NoError(t, err)
	}
	b.end()
	rest, err := io.ReadAll(events)
	assert.NoError(t, err)
	assert.Contains(t, string(rest), "event: end")
	assert.NoError(t, reply.Body.Close())
	<-left
	assert.Equal(t, b.stop(t), 0)
	assert.Equal(t, len(b.logged("what ran was canceled")), 1)
}
