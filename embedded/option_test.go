package embedded_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

func TestOptionsAllFaultsAtOnce(t *testing.T) {
	_, err := embedded.Start(
		nil,
		embedded.WithAddr("localhost"),
		embedded.WithAddr("localhost:http"),
		embedded.WithAddr("localhost:65536"),
		embedded.WithName("two words"),
		embedded.WithName("../up"),
		embedded.WithTLS(nil),
		embedded.WithTLS(&tls.Config{}),
		embedded.WithMaxPayload(0),
		embedded.WithUsers(),
		embedded.WithUsers(
			embedded.User{Name: "ann"},
			embedded.User{Password: "x"},
			embedded.User{Name: "bob", Password: "x", Publish: embedded.Permission{Deny: []string{"a..b", "a q"}}},
			embedded.User{Name: "bob", Password: "x", Subscribe: embedded.Permission{Allow: []string{"a q", "a b c"}}},
		),
		embedded.WithConfig(`authorization { token: secret }`),
	)
	assert.True(t, err != nil, "error")
	assert.Contains(t, err.Error(),
		"option 1 is nil",
		"missing port in address",
		`"localhost:http" has no port`,
		`"localhost:65536" has no port`,
		`"two words" contains a space`,
		`"../up" contains a slash`,
		"WithTLS: nil configuration",
		"WithTLS: no certificate",
		"WithMaxPayload: 0 bytes",
		"WithUsers: no users",
		`user "ann" has no password`,
		"a user without name",
		`user "bob": publish deny: "a..b" is not a subject`,
		`user "bob": publish deny: "a q" is not a subject`,
		`user "bob" is there twice`,
		`user "bob": subscribe allow: "a b c" is not a subject`,
		"single user or token",
	)
	lines := strings.Split(err.Error(), "\n")
	assert.Equal(t, len(lines), 17)
	for _, line := range lines {
		assert.True(t, strings.HasPrefix(line, "embedded: "), line)
	}
}

func TestOptionsThatDoNotGoTogether(t *testing.T) {
	for _, c := range []struct {
		want string
		opts []embedded.Option
	}{
		{"WithAddr and WithoutListener", []embedded.Option{embedded.WithoutListener(), embedded.WithAddr("127.0.0.1:0")}},
		{"WithTLS and WithoutListener", []embedded.Option{embedded.WithoutListener(), embedded.WithTLS(certificate(t))}},
		{"the text's cluster", []embedded.Option{embedded.WithoutListener(), embedded.WithConfig(`cluster { port: -1 }`)}},
		{"above the limit of 67108864", []embedded.Option{embedded.WithMaxPayload(64<<20 + 1)}},
		{"above the limit of 2000", []embedded.Option{embedded.WithMaxPayload(2001), embedded.WithConfig(`max_pending: 2000`)}},
	} {
		_, err := embedded.Start(c.opts...)
		assert.True(t, err != nil, c.want)
		assert.Contains(t, err.Error(), c.want)
	}
}

func TestWithConfig(t *testing.T) {
	s := start(t, embedded.WithConfig(`
		max_payload: 2048
		http: -1
		accounts {
			A { users [{ user: ann, password: a }], exports [{ service: "svc.echo" }] }
			B { users [{ user: bob, password: b }], imports [{ service: { account: A, subject: "svc.echo" }}] }
		}
	`))
	echo(t, connect(t, s, nats.UserInfo("ann", "a")), "svc.echo")
	bob := dial(t, s.URL(), nats.UserInfo("bob", "b"))
	assert.NoError(t, ask(bob, "svc.echo"))
	assert.Equal(t, bob.MaxPayload(), int64(2048))

	resp, err := http.Get("http://" + s.NATS().MonitorAddr().String() + "/healthz")
	assert.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	assert.NoError(t, resp.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	assert.Contains(t, string(body), `"ok"`)
	assert.True(t, s.NATS().MonitorAddr().IP.IsLoopback(), "monitoring on loopback")
}

func TestWithConfigIsOverridden(t *testing.T) {
	file := t.TempDir() + "/nats.log"
	s := start(t,
		embedded.WithConfig(fmt.Sprintf("listen: '0.0.0.0:1'\nmax_payload: 1000\nserver_name: text\nlog_file: %q", file)),
		embedded.WithAddr("127.0.0.1:0"), embedded.WithMaxPayload(2000))
	assert.True(t, strings.HasPrefix(s.URL(), "nats://127.0.0.1:"), s.URL())
	assert.Equal(t, connect(t, s).MaxPayload(), int64(2000))
	assert.Equal(t, s.Name(), "text")
	_, err := os.Stat(file)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestWithConfigListensWhereItSays(t *testing.T) {
	port := freePort(t)
	s := start(t, embedded.WithConfig("port: "+port))
	assert.Equal(t, s.URL(), "nats://127.0.0.1:"+port)
	assert.Equal(t, s.NATS().Addr().String(), "127.0.0.1:"+port)

	s = start(t, embedded.WithConfig(`host: "0.0.0.0"`))
	assert.True(t, s.NATS().Addr().(*net.TCPAddr).IP.IsUnspecified(), "all interfaces")
	assert.NoError(t, dial(t, s.URL()).Flush())
}

func TestWithConfigBroken(t *testing.T) {
	for text, want := range map[string][]string{
		"port: [":                                   {"WithConfig: "},
		"max_payload: many\nport: x":                {"line 1:", "line 2:"},
		"no_such_setting: 1":                        {`unknown field "no_such_setting"`},
		"server_name: 'a b'":                        {"spaces"},
		"include './no/such/file.conf'":             {"WithConfig: ", "no/such/file.conf"},
		"port: 70000":                               {"no port"},
		"accounts { A { users [{user: a}] }":        {"WithConfig: "},
		"no_auth_user: nobody":                      {"nobody"},
		"pid_file: /no/such/folder/pid":             {"did not start", "/no/such/folder"},
		"tls { cert_file: no.pem, key_file: k.pem}": {"WithConfig: "},
	} {
		t.Run(text, func(t *testing.T) {
			s, err := embedded.Start(embedded.WithConfig(text))
			assert.True(t, err != nil && s == nil, "error")
			assert.True(t, strings.HasPrefix(err.Error(), "embedded: "), err.Error())
			assert.Contains(t, err.Error(), want...)
		})
	}
}

// A second listener that can't be bound ends the start, not the process.
func TestWithConfigListenerInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for _, text := range []string{
		"http: %d", "leafnodes { port: %d }", "websocket { port: %d, no_tls: true }", "cluster { port: %d }",
		"gateway { name: g, port: %d }",
		"mqtt { port: %d }, jetstream: enabled", "cluster { port: %d }, port: %[1]d",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := embedded.Start(embedded.WithConfig(fmt.Sprintf(text, port)))
			assert.True(t, err != nil, "error")
			assert.Contains(t, err.Error(), "did not start", "address already in use", fmt.Sprint(port))
		})
	}
}

func TestWithUsers(t *testing.T) {
	s := start(t, embedded.WithUsers(
		embedded.User{Name: "service", Password: "s", Subscribe: embedded.Permission{Allow: []string{"svc.> q"}}, Replies: 1},
		embedded.User{Name: "client", Password: "c", Publish: embedded.Permission{Allow: []string{"svc.*"}, Deny: []string{"svc.secret"}}},
	), embedded.WithUsers(
		embedded.User{Name: "mute", Password: "m", Publish: embedded.Permission{Allow: []string{}}},
		embedded.User{Name: "admin", Password: "a"},
	))
	began := time.Now()
	_, err := s.Connect()
	assert.ErrorIs(t, err, nats.ErrAuthorization)
	assert.True(t, time.Since(began) < 5*time.Second, "refused at once") // not after the server's write deadline of 10 s
	_, err = nats.Connect(s.URL(), nats.UserInfo("client", "wrong"))
	assert.ErrorIs(t, err, nats.ErrAuthorization)

	service := connect(t, s, nats.UserInfo("service", "s"))
	_, err = service.QueueSubscribe("svc.add", "q", func(m *nats.Msg) { _ = m.Respond(nil) })
	assert.NoError(t, err)
	assert.NoError(t, service.Flush())
	for _, user := range []string{"client", "admin"} {
		assert.NoError(t, ask(connect(t, s, nats.UserInfo(user, user[:1])), "svc.add"), user)
	}
	for user, act := range map[string]func(*nats.Conn) error{
		"client":  func(nc *nats.Conn) error { return nc.Publish("svc.secret", nil) },
		"mute":    func(nc *nats.Conn) error { return nc.Publish("svc.add", nil) },
		"service": func(nc *nats.Conn) error { _, err := nc.SubscribeSync("svc.add"); return err },
	} {
		refused := make(chan error, 1)
		report := func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }
		nc := connect(t, s, nats.UserInfo(user, user[:1]), nats.ErrorHandler(report))
		assert.NoError(t, act(nc))
		assert.NoError(t, nc.Flush())
		assert.ErrorIs(t, <-refused, nats.ErrPermissionViolation, user)
	}
}

func TestWithUsersBesideThoseOfTheText(t *testing.T) {
	users := embedded.WithUsers(embedded.User{Name: "bob", Password: "b"})
	s := start(t, users, embedded.WithConfig(`authorization { users [{ user: ann, password: a }] }`))
	assert.NoError(t, connect(t, s, nats.UserInfo("ann", "a")).Flush())
	assert.NoError(t, connect(t, s, nats.UserInfo("bob", "b")).Flush())
	assert.NoError(t, s.Restart())
	assert.NoError(t, connect(t, s, nats.UserInfo("bob", "b")).Flush())

	_, err := embedded.Start(users, embedded.WithConfig(`authorization { users [{ user: bob, password: a }] }`))
	assert.Contains(t, err.Error(), `user "bob" is there twice`)
}

func TestWithTLS(t *testing.T) {
	conf := certificate(t)
	s := start(t, embedded.WithTLS(conf))
	conf.Certificates = nil // a copy was taken
	assert.True(t, strings.HasPrefix(s.URL(), "tls://"), s.URL())
	_, err := nats.Connect(s.URL())
	assert.True(t, err != nil, "unknown authority")
	assert.Contains(t, err.Error(), "certificate")

	nc := dial(t, s.URL(), nats.Secure(&tls.Config{RootCAs: conf.RootCAs}))
	state, err := nc.TLSConnectionState()
	assert.NoError(t, err)
	assert.True(t, state.HandshakeComplete, "TLS")
	echo(t, connect(t, s), "svc.echo") // in process, without
	assert.NoError(t, ask(nc, "svc.echo"))
	assert.NoError(t, s.Restart())
	assert.NoError(t, dial(t, s.URL(), nats.Secure(&tls.Config{RootCAs: conf.RootCAs})).Flush())
}

func TestWithLogger(t *testing.T) {
	out := &buffer{}
	log := func(level slog.Level) embedded.Option {
		return embedded.WithLogger(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})))
	}
	s := start(t, log(slog.LevelInfo), embedded.WithName("hub"))
	assert.NoError(t, connect(t, s).Flush())
	s.Shutdown()
	assert.Contains(t, out.String(), `level=INFO msg="Server is ready" server=hub`, `msg="Server Exiting.." server=hub`)
	assert.True(t, !strings.Contains(out.String(), "level=DEBUG"), "no debug lines")

	out.Reset()
	s = start(t, log(embedded.LevelTrace))
	assert.NoError(t, connect(t, s, nats.Name("me")).Publish("a.b", []byte("payload")))
	assert.Eventually(t, func() bool { return strings.Contains(out.String(), "[PUB a.b 7]") }, "trace")
	assert.Contains(t, out.String(), "level=DEBUG ", "level=DEBUG-4 ")

	out.Reset()
	_, err := embedded.Start(log(slog.LevelInfo), embedded.WithAddr(strings.TrimPrefix(s.URL(), "nats://")))
	assert.True(t, err != nil, "in use")
	assert.Contains(t, out.String(), `level=ERROR+4 msg="Error listening on port`)

	assert.NoError(t, connect(t, start(t, embedded.WithLogger(nil))).Flush())
}

func TestOptionServesMany(t *testing.T) {
	opts := []embedded.Option{embedded.WithConfig("port: -1"), embedded.WithUsers(embedded.User{Name: "u", Password: "p"})}
	for range 3 {
		assert.NoError(t, connect(t, start(t, opts...), nats.UserInfo("u", "p")).Flush())
	}
}

// certificate returns a configuration with a certificate for the loopback address that its own RootCAs trust.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	assert.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	assert.NoError(t, l.Close())
	_, port, err := net.SplitHostPort(l.Addr().String())
	assert.NoError(t, err)
	return port
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
