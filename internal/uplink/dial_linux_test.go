package uplink

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
)

func TestDialerBoundsSilence(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	o := nats.GetDefaultOptions()
	o.Timeout = 3 * time.Second
	u := &Uplink{}
	assert.NoError(t, u.Option(&o))
	assert.True(t, o.CustomDialer == nats.CustomDialer(u))
	assert.Equal(t, o.Dialer.Timeout, 3*time.Second, "the user's")
	c, err := u.Dial("tcp", l.Addr().String())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.(*Outlet).Conn.(*net.TCPConn).SyscallConn()
	assert.NoError(t, err)
	got := 0
	assert.NoError(t, raw.Control(func(fd uintptr) {
		got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}))
	assert.NoError(t, err)
	assert.Equal(t, got, 5000)

	own := &net.Dialer{}
	o = nats.GetDefaultOptions()
	o.Dialer = own
	assert.NoError(t, new(Uplink).Option(&o))
	assert.True(t, o.Dialer == own, "a dialer of the user's stays")
}
