package uplink

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
)

// selfSigned makes TLS for a server named localhost, and for its clients.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	assert.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost"}
}

// covered is an outlet with TLS between it and a connection, past its handshake, and the far end.
func covered(t testing.TB, near, far net.Conn, patience time.Duration) (*Outlet, *tls.Conn) {
	t.Helper()
	server, client := selfSigned(t)
	peer := tls.Server(far, server)
	shaken := make(chan error, 1)
	go func() { shaken <- peer.Handshake() }()
	o := newOutlet(near, patience)
	assert.True(t, o.secure(client))
	assert.NoError(t, <-shaken)
	assert.NoError(t, o.SetDeadline(time.Time{}))
	return o, peer
}

// What many put, and others write, arrives whole and in the order of each.
func TestCoverKeepsTheOrder(t *testing.T) {
	near, far := sockets(t)
	o, peer := covered(t, near, far, time.Minute)
	lines := bufio.NewReader(peer)
	keepsOrder(t, o, lines, 16, 200)
	assert.Equal(t, heldBy(o), 0)
	assert.Equal(t, heldBy(o.beneath), 0)
	assert.NoError(t, o.Close())
	_, err := lines.ReadByte()
	assert.Equal(t, err, io.EOF, "the end is announced: else it would be an unexpected one")
}

func heldBy(o *Outlet) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held
}

// A peer that reads nothing holds nobody up: what does not go waits, and is refused where too much does.
func TestCoverDoesNotWaitForThePeer(t *testing.T) {
	near, far := sockets(t)
	o, peer := covered(t, near, far, time.Minute)
	body := noise(8 << 10)
	want := 0
	for o.Reserve(len(body) + 2) {
		_, err := o.Put(nil, body, time.Now())
		assert.NoError(t, err)
		want += len(body) + 2
	}
	assert.True(t, want > maxWaiting)
	assert.Equal(t, heldBy(o), 0)
	assert.True(t, heldBy(o.beneath) > 0)
	assert.Eventually(t, func() bool { return o.stuck() })
	got := make([]byte, want)
	_, err := io.ReadFull(peer, got)
	assert.NoError(t, err)
	assert.True(t, bytes.Equal(got[want-len(body)-2:want-2], body))
	assert.Eventually(t, func() bool { return o.waiting.Load() == 0 && !o.stuck() })
	assert.NoError(t, o.Close())
}

// Who fills the connection past the bound waits, and those who put do not wait with them.
func TestCoverHoldsBackWhoFillsIt(t *testing.T) {
	near, far := sockets(t)
	o, _ := covered(t, near, far, time.Minute)
	chunk := noise(1 << 20)
	for heldBy(o.beneath) < maxHeld {
		_, err := o.Write(chunk)
		assert.NoError(t, err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := o.Write(chunk)
		waits <- err
	}()
	for range 100 {
		_, err := o.Put([]byte("x"), nil, time.Now()) // which calls have no room for
		assert.NoError(t, err)
	}
	select {
	case err := <-waits:
		t.Fatal("it did not wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	assert.NoError(t, o.Close())
	assert.ErrorIs(t, <-waits, net.ErrClosed)
}

// What was put before it was closed is written, whoever was to write it.
func TestCoverPutBeforeClose(t *testing.T) {
	near, far := sockets(t)
	o, peer := covered(t, near, far, time.Minute)
	o.mu.Lock()
	o.gathering = true // by somebody who does not come back
	o.mu.Unlock()
	post(t, o, "last ", "words")
	assert.NoError(t, o.Close())
	got, err := io.ReadAll(peer)
	assert.NoError(t, err)
	assert.Equal(t, string(got), "last words\r\n")
	_, err = o.Put([]byte("x"), nil, time.Now())
	assert.ErrorIs(t, err, net.ErrClosed)
}

// A network that takes nothing is given up, and both the reader and who puts learn why.
func TestCoverLosesPatience(t *testing.T) {
	near, far := sockets(t)
	o, _ := covered(t, near, far, 100*time.Millisecond)
	told := make(chan uint64, 1)
	o.epoch, o.sever = 7, func(epoch uint64, _ bool) { told <- epoch }
	var err error
	for chunk := noise(1 << 20); err == nil && heldBy(o.beneath) < maxWaiting; {
		_, err = o.Write(chunk)
	}
	_, err = o.Read(make([]byte, 1))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Equal(t, <-told, uint64(7))
	_, err = o.Put([]byte("x"), nil, time.Now())
	assert.ErrorIs(t, err, nats.ErrDisconnected)
	_, err = o.Write([]byte("x"))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Equal(t, o.waiting.Load(), int64(0))
	assert.NoError(t, o.Close())
}

// A farewell is one over TLS, too.
func TestCoverFarewell(t *testing.T) {
	near, far := sockets(t)
	o, peer := covered(t, near, far, time.Minute)
	_, err := peer.Write([]byte("PING\r\n-ERR 'Maximum Payload Violation'\r\n"))
	assert.NoError(t, err)
	assert.NoError(t, peer.Close())
	var got []byte
	p := make([]byte, 1000)
	for err == nil {
		var n int
		n, err = o.Read(p)
		got = append(got, p[:n]...)
	}
	assert.Equal(t, string(got), "PING\r\n")
	assert.Contains(t, err.Error(), "hung up", "Maximum Payload Violation")
}

// A broker that hangs up right after the handshake did not like the certificate; later it is an end like any other.
func TestCoverOnTrial(t *testing.T) {
	for _, trial := range []bool{true, false} {
		near, far := sockets(t)
		o, _ := covered(t, near, far, time.Minute)
		o.Conn.(*cover).trial.Store(trial)
		assert.NoError(t, far.Close())
		_, err := o.Read(make([]byte, 1000))
		assert.ErrorIs(t, err, io.EOF)
		assert.Equal(t, errors.Is(err, nats.ErrTLS), trial)
		assert.Equal(t, strings.Contains(err.Error(), "after TLS handshake"), trial, "a bus takes that for the broker's word")
	}
}

// A network over which no attempt is possible gets TLS as well as any: nothing is put there.
func TestCoverOfAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		o, peer := covered(t, near, far, time.Minute)
		body := noise(3 * writeChunk)
		_, err := o.Write(body)
		assert.NoError(t, err)
		got := make([]byte, len(body))
		_, err = io.ReadFull(peer, got)
		assert.NoError(t, err)
		assert.True(t, bytes.Equal(got, body))
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		assert.NoError(t, o.Close())
		assert.NoError(t, far.Close())
	})
}

func TestFirstLine(t *testing.T) {
	for _, c := range []struct {
		reads []string
		more  bool
	}{
		{[]string{"INFO {}\r\n"}, false},
		{[]string{"IN", "FO {}\r", "\n"}, false},
		{[]string{"INFO {}\r\n", ""}, false},
		{[]string{"INFO {}\r\nP"}, true},
		{[]string{"INFO {}\r\n", "P"}, true},
		{[]string{"IN", "FO {}\r\nPING\r\n"}, true},
	} {
		var l firstLine
		for _, p := range c.reads {
			l.hear([]byte(p))
		}
		assert.Equal(t, l.more, c.more, fmt.Sprint(c.reads))
	}
}
