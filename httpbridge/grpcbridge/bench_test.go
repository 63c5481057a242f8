package grpcbridge_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/grpcbridge"
	"postbus.example/internal/assert"
)

// discard is a ResponseWriter that keeps nothing but headers.
type discard struct {
	header http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) WriteHeader(status int)      { w.status = status }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
func (w *discard) Flush()                      {}

type rewound struct{ *strings.Reader }

func (rewound) Close() error { return nil }

// BenchmarkUnary is a gRPC call in the server's process, without a network and with an endpoint.Mux for the bus.
func BenchmarkUnary(b *testing.B) {
	bridge := httpbridge.New(newMux(b), httpbridge.Expose("acme.Words.Upper"), grpcbridge.Enable(),
		httpbridge.WithLogger(slog.New(slog.DiscardHandler)))
	assert.NoError(b, bridge.Err())
	const body = "\x00\x00\x00\x00\x06\x0a\x04word"
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/acme.Words/Upper", http.NoBody)
	assert.NoError(b, err)
	r.Header.Set("Content-Type", "application/grpc")
	r.ProtoMajor, r.RemoteAddr = 2, "192.0.2.1:1"
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		r.Body = rewound{strings.NewReader(body)}
		bridge.ServeHTTP(w, r)
	}
	assert.Equal(b, w.header.Get(http.TrailerPrefix+"Grpc-Status"), "0")
}
