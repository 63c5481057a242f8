package uplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// nats.go would put TLS on top of our connection, and each of its writes would be a record of its own. So TLS goes beneath
// what gathers, and above what writes:
//
//	nats.go, put ──► outlet: gathers ──► cover: TLS ──► outlet: attempt, drain ──► network
//
// The upper outlet never has less taken than it gives, since the lower one takes all. What waits is one backlog of both.

// cover is the TLS between two outlets.
type cover struct {
	*tls.Conn

	trial atomic.Bool // hands were shaken, and the broker has not said yet whether it takes us
}

// secure puts TLS between the outlet and its network. It is for the one who makes the connection. Where it fails the outlet
// is lost, with the reason.
func (o *Outlet) secure(config *tls.Config) bool {
	network := newOutlet(o.Conn, o.patience)
	network.backlog = o.backlog
	c := &cover{Conn: tls.Client(footing{network}, config)}
	err := c.HandshakeContext(context.Background()) // who makes the connection has bounded it
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.giveUp(err)
		return false
	}
	c.trial.Store(true)
	o.Conn, o.attempt, o.beneath = c, c.Write, network
	return true
}

func (c *cover) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.verdict(err)
}

func (c *cover) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.verdict(err)
}

// SetDeadline implements net.Conn. See outlet's.
func (c *cover) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.trial.Store(false)
	}
	return c.Conn.SetDeadline(t)
}

// verdict says what it means when a broker hangs up right after the handshake, as nats.go does: it did not like our certificate.
func (c *cover) verdict(err error) error {
	if err != nil && c.trial.Load() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		return fmt.Errorf("%w: connection closed by remote after TLS handshake: %w", nats.ErrTLS, err)
	}
	return err
}

// footing is what TLS stands on. Its Write never waits: who writes holds locks.
type footing struct{ *Outlet }

func (f footing) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take(p)
}

// Read leaves what it reads as it is: it is not the protocol.
func (f footing) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err != nil {
			err = f.err
		}
	}
	return n, err
}

// firstLine is whether exactly one line was read, the broker's INFO.
type firstLine struct{ some, more bool }

func (l *firstLine) hear(p []byte) {
	at := bytes.IndexByte(p, '\n')
	l.more = l.more || len(p) > 0 && l.some || at >= 0 && at < len(p)-1
	l.some = l.some || at >= 0
}

// TLS is what the TLS of the connection agreed on, where it is done here.
func (o *Outlet) TLS() (state tls.ConnectionState, ours bool) {
	o.mu.Lock()
	c, ours := o.Conn.(*cover)
	o.mu.Unlock()
	if ours {
		state = c.ConnectionState()
	}
	return state, ours
}
