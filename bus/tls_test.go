package bus_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// files writes a certificate and its key, and who signed it.
func (a *authority) files(t testing.TB, of tls.Certificate) (cert, key, ca string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(of.PrivateKey)
	assert.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		assert.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return write("cert.pem", "CERTIFICATE", of.Certificate[0]), write("key.pem", "PRIVATE KEY", der), write("ca.pem", "CERTIFICATE", a.cert.Raw)
}

// mutual makes TLS for a server that wants to see certificates, too.
func (a *authority) mutual(t testing.TB) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{a.of(t, "server")}, MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool,
	}
}

// However TLS is asked for, it is beneath what is put into the connection, of later connections, too.
func TestTLSBeneath(t *testing.T) {
	ours := newAuthority(t)
	config := &tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS12}
	identity := ours.of(t, "client")
	cert, key, ca := ours.files(t, identity)
	plain := bustest.Server(t, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS12}))
	mutual := bustest.Server(t, embedded.WithTLS(ours.mutual(t)))
	serverCert, serverKey, _ := ours.files(t, ours.of(t, "server"))
	first := bustest.Server(t, embedded.WithConfig(fmt.Sprintf(`tls { cert_file: %q, key_file: %q, handshake_first: true }`, serverCert, serverKey)))
	voluntary := bustest.Server(t, embedded.WithConfig(fmt.Sprintf(`allow_non_tls: true, tls { cert_file: %q, key_file: %q }`, serverCert, serverKey)))
	both := func(o *nats.Options) error {
		own := config.Clone()
		own.Certificates = []tls.Certificate{identity}
		return nats.Secure(own)(o)
	}
	for name, c := range map[string]struct {
		url  string
		opts []nats.Option
	}{
		"a config":                   {plain.URL(), []nats.Option{nats.Secure(config)}},
		"the server asks for it":     {strings.Replace(plain.URL(), "tls://", "nats://", 1), []nats.Option{func(o *nats.Options) error { o.TLSConfig = config; return nil }}},
		"by name":                    {strings.Replace(plain.URL(), "127.0.0.1", "localhost", 1), []nats.Option{nats.Secure(config)}},
		"without a scheme":           {"localhost" + plain.URL()[strings.LastIndex(plain.URL(), ":"):], []nats.Option{nats.Secure(config)}},
		"the second of two":          {"localhost:1, " + plain.URL(), []nats.Option{nats.Secure(config), nats.DontRandomize()}},
		"roots from a file":          {plain.URL(), []nats.Option{nats.RootCAs(ca)}},
		"the client's, too":          {mutual.URL(), []nats.Option{both}},
		"the client's, from files":   {mutual.URL(), []nats.Option{nats.RootCAs(ca), nats.ClientCert(cert, key)}},
		"first":                      {first.URL(), []nats.Option{nats.Secure(config), nats.TLSHandshakeFirst()}},
		"the server does not ask it": {voluntary.URL(), []nats.Option{nats.Secure(config)}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := bus.Connect(c.url, quiet(), quickly(), bus.WithNATS(c.opts...))
			assert.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			secured(t, b)
			assert.True(t, b.Puts())
			assert.NoError(t, b.Conn().ForceReconnect())
			assert.Eventually(t, func() bool { return b.Conn().Stats().Reconnects == 1 && b.Puts() })
			secured(t, b)
		})
	}
}

// secured checks that a bus works, and does so with TLS.
func secured(t testing.TB, b *bus.Bus) {
	t.Helper()
	if len(b.Stats()) == 1 {
		serve(t, b, "svc.echo", rawEndpoint(echo))
	}
	got, err := echoer(b, "svc.echo")(t.Context(), []byte("x"))
	assert.NoError(t, err)
	assert.Equal(t, string(got), "x")
	state, err := b.TLSConnectionState()
	assert.NoError(t, err)
	assert.True(t, state.HandshakeComplete && len(state.VerifiedChains) > 0)
}

// Where we can't know what the client library would do, it does it.
func TestTLSOnTop(t *testing.T) {
	ours := newAuthority(t)
	config := &tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS12}
	cert, key, _ := ours.files(t, ours.of(t, "server"))
	s := bustest.Server(t, embedded.WithConfig(fmt.Sprintf(
		`tls { cert_file: %q, key_file: %q }, websocket { listen: "127.0.0.1:-1", tls { cert_file: %q, key_file: %q } }`, cert, key, cert, key)))
	for name, c := range map[string]struct {
		url string
		opt nats.Option
	}{
		"a dialer of the user's": {s.URL(), nats.SetCustomDialer(&net.Dialer{})},
		"a websocket":            {s.NATS().WebsocketURL(), nats.Name("web")},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := bus.Connect(c.url, quiet(), quickly(), bus.WithNATS(nats.Secure(config), c.opt))
			assert.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			secured(t, b)
			assert.True(t, !b.Puts())
			_, err = b.Conn().TLSConnectionState()
			assert.NoError(t, err)
		})
	}
	t.Run("none", func(t *testing.T) {
		_, err := alone(t).TLSConnectionState()
		assert.ErrorIs(t, err, nats.ErrConnectionNotTLS)
		b := dialled(t, bustest.Server(t))
		_, err = b.TLSConnectionState()
		assert.ErrorIs(t, err, nats.ErrConnectionNotTLS)
	})
}

// A server that the broker told of by its address has the name of the one that told it. Only the client library knows that.
func TestTLSOfAServerThatWasDiscovered(t *testing.T) {
	ours := newAuthority(t)
	named := ours.named(t, "localhost")
	c, err := embedded.StartCluster(2, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{named}, MinVersion: tls.VersionTLS12}))
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	url := strings.Replace(c.Server(0).URL(), "127.0.0.1", "localhost", 1)
	b, err := bus.Connect(url, quiet(), quickly(), bus.WithNATS(nats.Secure(&tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS12})))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	assert.True(t, b.Puts())
	secured(t, b)
	c.Server(0).Shutdown()
	assert.Eventually(t, func() bool {
		return b.Conn().IsConnected() && strings.HasSuffix(c.Server(1).URL(), b.Conn().ConnectedAddr())
	})
	assert.Eventually(t, func() bool { return b.Ready(t.Context()) == nil })
	secured(t, b)
	assert.True(t, !b.Puts())
}

// What is wrong is told in the client library's own words, and errors.
func TestTLSFaults(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	server := bustest.Server(t, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS13}))
	other := bustest.Server(t, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{ours.named(t, "elsewhere.example")}, MinVersion: tls.VersionTLS13}))
	mutual := bustest.Server(t, embedded.WithTLS(ours.mutual(t)))
	without := bustest.Server(t)
	config := func(change func(c *tls.Config)) nats.Option {
		c := &tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS12}
		change(c)
		return nats.Secure(c)
	}
	broken := errors.New("the safe is locked")
	for name, c := range map[string]struct {
		url  string
		opt  nats.Option
		is   error
		says string
	}{
		"another authority": {server.URL(), config(func(c *tls.Config) { c.RootCAs = theirs.pool }), nats.ErrTLS, "unknown authority"},
		"no authority":      {server.URL(), config(func(c *tls.Config) { c.RootCAs = nil }), nats.ErrTLS, "unknown authority"},
		"another address":   {other.URL(), config(func(*tls.Config) {}), nats.ErrTLS, "127.0.0.1"},
		"another name":      {strings.Replace(other.URL(), "127.0.0.1", "localhost", 1), config(func(*tls.Config) {}), nats.ErrTLS, "localhost"},
		"a name of ours":    {server.URL(), config(func(c *tls.Config) { c.ServerName = "nowhere.example" }), nats.ErrTLS, "nowhere.example"},
		"too old":           {server.URL(), config(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), nats.ErrTLS, "protocol version"},
		"not seen":          {server.URL(), config(func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return broken } }), broken, "safe"},
		"no TLS there":      {without.URL(), config(func(*tls.Config) {}), nats.ErrSecureConnWanted, "not available"},
		"no certificate":    {mutual.URL(), config(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), nats.ErrTLS, ""},
		"roots that can't be had": {server.URL(), func(o *nats.Options) error {
			o.Secure, o.RootCAsCB = true, func() (*x509.CertPool, error) { return nil, broken }
			return nil
		}, broken, "safe"},
		"a certificate that can't be had": {server.URL(), func(o *nats.Options) error {
			o.Secure, o.TLSCertCB = true, func() (tls.Certificate, error) { return tls.Certificate{}, broken }
			return nil
		}, broken, "safe"},
	} {
		t.Run(name, func(t *testing.T) {
			_, want := nats.Connect(c.url, c.opt)
			assert.ErrorIs(t, want, c.is)
			var err error
			timed(t, soon, func() { _, err = bus.Connect(c.url, quiet(), bus.WithNATS(c.opt)) })
			assert.ErrorIs(t, err, c.is)
			assert.Contains(t, err.Error(), want.Error(), c.says)
		})
	}
}

// named is of for another name and no address.
func (a *authority) named(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, der := a.sign(t, &x509.Certificate{
		SerialNumber: a.cert.SerialNumber, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// What somebody on the way adds to the greeting, before TLS, is not taken for the broker's.
func TestNothingIsReadBeforeTLS(t *testing.T) {
	ours := newAuthority(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			if _, err = c.Write([]byte("INFO {\"tls_required\":true,\"headers\":true}\r\n-ERR 'Authorization Violation'\r\n")); err != nil {
				return err
			}
			secret := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS13})
			lines := bufio.NewScanner(secret)
			for lines.Scan() {
				if lines.Text() == "PING" {
					if _, err := secret.Write([]byte("PONG\r\n")); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()
	b, err := bus.Connect("tls://"+l.Addr().String(), quiet(), bus.WithNATS(nats.Secure(&tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS13})))
	assert.NoError(t, err)
	assert.True(t, !b.Puts())
	assert.NoError(t, b.Close())
	assert.NoError(t, <-done)
}

// A broker that never shakes hands is not waited for longer than nats.go waits.
func TestTLSWithNobody(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("INFO {\"tls_required\":true}\r\n"))
			_, _ = io.Copy(io.Discard, c) // what it says is not answered
			_ = c.Close()
		}
	}()
	timed(t, soon, func() {
		_, err := bus.Connect("nats://"+l.Addr().String(), quiet(), bus.WithNATS(nats.Timeout(100*time.Millisecond)))
		assert.ErrorIs(t, err, nats.ErrTLS)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}
