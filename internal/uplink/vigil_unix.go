//go:build unix

package uplink

import (
	"net"
	"syscall"
)

// unreads returns a function that reports whether a socket has something that nobody has read yet, be it its end. There is none
// for connections of other kinds.
func unreads(c net.Conn) func() bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return func() (there bool) {
		_ = raw.Control(func(fd uintptr) { // not Read, which waits for the reader that waits
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			there = err == nil
		})
		return there
	}
}
