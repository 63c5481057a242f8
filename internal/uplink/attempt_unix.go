//go:build unix

package uplink

import (
	"errors"
	"net"
	"syscall"
)

// attempts returns a function that writes to a socket what it takes at once, which may be nothing. It is not for
// concurrent use. There is none for connections of other kinds: who wraps a socket has its reasons.
func attempts(c net.Conn) func([]byte) (int, error) {
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	}
	if raw == nil || err != nil {
		return nil
	}
	a := &attempt{raw: raw}
	a.write = a.once // made once: a method value is allocated
	return a.try
}

// attempt is one write, and what came of it.
type attempt struct {
	raw   syscall.RawConn
	write func(fd uintptr) bool
	p     []byte
	n     int
	err   error
}

func (a *attempt) try(p []byte) (int, error) {
	a.p = p
	err := a.raw.Write(a.write)
	a.p = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(a.err, syscall.EAGAIN), errors.Is(a.err, syscall.EINTR):
		return 0, nil
	case a.err != nil:
		return 0, a.err
	}
	return a.n, nil
}

// once reports true whatever it meets: else it would be called again when the socket is ready.
func (a *attempt) once(fd uintptr) bool {
	a.n, a.err = syscall.Write(int(fd), a.p)
	return true
}
