package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/cmd/postbus/internal/cli"
	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// TestConnect_users logs in by name, as flags, the environment and a URL have it.
func TestConnect_users(t *testing.T) {
	t.Parallel()
	s := broker(t, embedded.WithUsers(
		embedded.User{Name: "ann", Password: "s3cret"},
		embedded.User{Name: "bob", Password: "hush", Subscribe: embedded.Permission{Allow: []string{"_INBOX_bob.>"}}},
	))
	b := bustest.Connect(t, s, bus.WithNATS(nats.UserInfo("ann", "s3cret")))
	for subject, e := range math() {
		assert.NoError(t, b.Serve(subject, e))
	}
	call := to(s, "call", "math.add", `{"a":1}`)
	well := result{0, `{"sum":1}` + "\n", ""}
	assert.Equal(t, run(t, append(call, "--nats-user", "ann"), "POSTBUS_NATS_PASSWORD=s3cret"), well)
	assert.Equal(t, run(t, []string{"call", "math.add", `{"a":1}`}, "POSTBUS_NATS=nats://ann:s3cret@"+strings.TrimPrefix(s.URL(), "nats://")), well)
	assert.Equal(t, run(t, append(call, "--nats-user", "bob", "--inbox-prefix", "_INBOX_bob"), "POSTBUS_NATS_PASSWORD=hush"), well)
	r := run(t, append(call, "--nats-user", "bob"), "POSTBUS_NATS_PASSWORD=hush")
	assert.Equal(t, r.code, 107, r.err)
	r = run(t, append(call, "--nats-user", "ann"), "POSTBUS_NATS_PASSWORD=wrong")
	assert.Equal(t, r.code, 116, r.err)
	assert.Equal(t, run(t, call).code, 116, "nobody gets in without a name")
}

func TestConnect_TLS(t *testing.T) {
	t.Parallel()
	pki := cli.NewPKI(t)
	roots := x509.NewCertPool()
	assert.True(t, roots.AppendCertsFromPEM(pki.CAPEM))
	s := broker(t, embedded.WithTLS(&tls.Config{
		Certificates: []tls.Certificate{pki.Pair(t)}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}))
	assert.Equal(t, run(t, to(s, "ls", "--json", "--nats-ca", pki.CA, "--nats-cert", pki.Cert, "--nats-key", pki.Key)), result{0, "[]\n", ""})
	assert.Equal(t, run(t, to(s, "ls", "--nats-ca", pki.CA)).code/100, 1, "without a certificate nobody gets in")
	assert.Equal(t, run(t, to(s, "ls")).code/100, 1, "an authority that is not known is not believed")
}
