package httpbridge_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// A request over a socket, answered by an endpoint in this process: what the bridge adds to net/http, and net/http.
func BenchmarkBridge(b *testing.B) {
	bridge := httpbridge.New(newMux(b), httpbridge.Expose("svc.add"))
	assert.NoError(b, bridge.Err())
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(b, err)
	server := bridge.Server("")
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	b.Cleanup(func() {
		client.CloseIdleConnections()
		assert.NoError(b, server.Close())
		assert.ErrorIs(b, <-ended, http.ErrServerClosed)
	})
	one := func(b *testing.B) {
		b.Helper()
		resp, err := client.Post("http://"+l.Addr().String()+"/svc/add", "application/json", strings.NewReader(`{"a":1,"b":2}`))
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.Body.Close() != nil || resp.StatusCode != http.StatusOK {
			b.Error(resp.Status)
		}
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			one(b)
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				one(b)
			}
		})
	})
}
