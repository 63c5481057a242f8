package bus

import (
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

func TestDialerBoundsSilence(t *testing.T) {
	s, err := embedded.Start()
	assert.NoError(t, err)
	t.Cleanup(s.Shutdown)
	quiet := WithLogger(slog.New(slog.DiscardHandler))
	b, err := Connect(s.URL(), quiet, WithNATS(nats.Timeout(3*time.Second)))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	dialer := b.nc.Opts.Dialer
	assert.Equal(t, dialer.Timeout, 3*time.Second, "the user's")
	c, err := dialer.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.(*net.TCPConn).SyscallConn()
	assert.NoError(t, err)
	got := 0
	assert.NoError(t, raw.Control(func(fd uintptr) {
		got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}))
	assert.NoError(t, err)
	assert.Equal(t, got, 5000)

	own := &net.Dialer{}
	b2, err := Connect(s.URL(), quiet, WithNATS(nats.Dialer(own)))
	assert.NoError(t, err)
	assert.True(t, b2.nc.Opts.Dialer == own, "a dialer of the user's stays")
	assert.NoError(t, b2.Close())
}
