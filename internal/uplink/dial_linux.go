package uplink

import (
	"syscall"
	"time"
)

// userTimeout is how long the system keeps a connection whose peer acknowledges nothing: a little less than two pings take.
const userTimeout = 5 * time.Second

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name on every architecture.
const tcpUserTimeout = 0x12

// boundSilence has the kernel give up on a connection whose peer is gone without a word, rather than send again for a
// quarter of an hour. Where it can't be set the pings remain.
func boundSilence(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds()))
	})
}
