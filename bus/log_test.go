package bus_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// text is a log for several goroutines.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// has waits for a line with all of the parts.
func (l *text) has(t *testing.T, parts ...string) {
	t.Helper()
	assert.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
	lines:
		for line := range strings.Lines(l.buf.String()) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue lines
				}
			}
			return true
		}
		return false
	}, strings.Join(parts, " "))
}

// What happens to the connection goes to the bus's logger: what was dropped, that it was lost, that the bus drains.
func TestEventsAreLogged(t *testing.T) {
	s, err := embedded.Start()
	assert.NoError(t, err)
	defer s.Shutdown()
	var log text
	b, err := bus.Connect(s.URL(), bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	assert.NoError(t, err)

	assert.NoError(t, b.Serve("svc.add", endpoint.New(add)))
	hold := make(chan struct{})
	sub, err := b.Conn().Subscribe("slow", func(*nats.Msg) { <-hold })
	assert.NoError(t, err)
	assert.NoError(t, sub.SetPendingLimits(1, -1))
	for range 10 {
		assert.NoError(t, b.Conn().Publish("slow", nil))
	}
	log.has(t, "level=WARN", "nats error", "subject=slow", "slow consumer")
	close(hold)

	s.Shutdown()
	log.has(t, "level=WARN", "nats connection lost")
	assert.NoError(t, b.Drain(context.Background()))
	log.has(t, "level=INFO", "bus drains", "instance="+b.ID())
	log.has(t, "level=INFO", "bus drained", "took=")
}
