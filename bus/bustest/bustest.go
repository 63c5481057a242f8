// Package bustest gives tests a bus on a real NATS server in their own process.
//
//	b := bustest.New(t)                                   // server and bus, gone with the test
//	err := b.Serve("svc.add", endpoint.New(add))
//
// What a network does to a service is tested in a bubble, in virtual time, with links that freeze, lose and break:
//
//	synctest.Test(t, func(t *testing.T) {
//		n := bustest.NewNet(t)
//		service, caller := n.Connect("service"), n.Connect("caller")
//		n.Link("service").Down.Latency(time.Minute) // which takes no time
//		…
//	})
package bustest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
)

// New starts a NATS server without a socket and connects a bus to it; both end with the test, the bus by a drain. Errors
// fail the test at once, a handler that does not end within ten seconds fails it too. The bus logs to the test unless
// bus.WithLogger says otherwise.
func New(t testing.TB, opts ...bus.Option) *bus.Bus {
	t.Helper()
	return Connect(t, Server(t, embedded.WithoutListener()), opts...)
}

// Server starts a NATS server that ends with the test.
func Server(t testing.TB, opts ...embedded.Option) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(opts...)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// Connect connects a bus to a server, in process; it is drained when the test ends. One server may have many.
func Connect(t testing.TB, s *embedded.Server, opts ...bus.Option) *bus.Bus {
	t.Helper()
	log := &testLog{to: t.Output()}
	t.Cleanup(log.end) // after the drain below
	opts = append([]bus.Option{bus.WithLogger(log.logger()), bus.WithNATS(nats.InProcessServer(s))}, opts...)
	b, err := bus.Connect("", opts...)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	t.Cleanup(func() { drain(t, b) })
	return b
}

func drain(t testing.TB, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("bustest: drain: %v", err)
	}
}

// testLog writes to a test until it has ended: a handler that outlives its test must not panic over a line of log.
type testLog struct {
	mu sync.Mutex
	to io.Writer
}

func (l *testLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return len(p), nil
	}
	return l.to.Write(p)
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = nil
}
