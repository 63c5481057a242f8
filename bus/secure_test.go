package bus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = a.sign(t, of, nil)
	var err error
	a.cert, err = x509.ParseCertificate(der)
	assert.NoError(t, err)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(t testing.TB, of *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	parent := a.cert
	if by == nil {
		parent, by = of, key
	}
	der, err := x509.CreateCertificate(rand.Reader, of, parent, key.Public(), by)
	assert.NoError(t, err)
	return key, der
}

// of makes a certificate for a server or a client on this machine.
func (a *authority) of(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, der := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// works checks that a bus made with the options serves and calls over its own connection.
func works(t testing.TB, url string, opts ...bus.Option) {
	t.Helper()
	b, err := bus.Connect(url, append(opts, quiet())...)
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.add", endpoint.New(add))
	got, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 3)
	assert.NoError(t, b.Ready(t.Context()))
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	t.Run("server", func(t *testing.T) {
		s := bustest.Server(t, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS13}))
		works(t, s.URL(), bus.WithNATS(nats.Secure(&tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS13})))
		timed(t, soon, func() {
			_, err := bus.Connect(s.URL(), quiet(), bus.WithNATS(nats.Secure(&tls.Config{RootCAs: theirs.pool, MinVersion: tls.VersionTLS13})))
			failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
			assert.Contains(t, err.Error(), "certificate")
		})
	})
	t.Run("both", func(t *testing.T) {
		s := bustest.Server(t, embedded.WithTLS(&tls.Config{
			Certificates: []tls.Certificate{ours.of(t, "server")}, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool,
		}))
		client := func(certs ...tls.Certificate) bus.Option {
			return bus.WithNATS(nats.Secure(&tls.Config{RootCAs: ours.pool, Certificates: certs, MinVersion: tls.VersionTLS13}))
		}
		works(t, s.URL(), client(ours.of(t, "client")))
		for name, opt := range map[string]bus.Option{"none": client(), "another's": client(theirs.of(t, "client"))} {
			timed(t, soon, func() {
				_, err := bus.Connect(s.URL(), quiet(), opt)
				failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
				assert.True(t, err != nil, name)
			})
		}
	})
}

func TestNKeys(t *testing.T) {
	user := func() (string, nkeys.KeyPair) {
		kp, err := nkeys.CreateUser()
		assert.NoError(t, err)
		key, err := kp.PublicKey()
		assert.NoError(t, err)
		return key, kp
	}
	key, kp := user()
	strangerKey, stranger := user()
	s := bustest.Server(t, embedded.WithConfig(fmt.Sprintf("authorization { users: [ { nkey: %s } ] }", key)))
	works(t, s.URL(), bus.WithNATS(nats.Nkey(key, kp.Sign)))
	for name, opt := range map[string]nats.Option{
		"unknown": nats.Nkey(strangerKey, stranger.Sign), "forged": nats.Nkey(key, stranger.Sign), "nobody": nats.Name("nobody"),
	} {
		timed(t, soon, func() {
			_, err := bus.Connect(s.URL(), quiet(), bus.WithNATS(opt))
			failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
			assert.ErrorIs(t, err, nats.ErrAuthorization, name)
		})
	}
}

// operator is a broker whose clients come with credentials that an account signed.
type operator struct {
	*embedded.Server

	account nkeys.KeyPair
	claims  *jwt.AccountClaims
	signer  nkeys.KeyPair
}

func newOperator(t testing.TB) *operator {
	t.Helper()
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		kp, err := create()
		assert.NoError(t, err)
		key, err := kp.PublicKey()
		assert.NoError(t, err)
		return kp, key
	}
	op, opKey := pair(nkeys.CreateOperator)
	acc, accKey := pair(nkeys.CreateAccount)
	opToken, err := jwt.NewOperatorClaims(opKey).Encode(op)
	assert.NoError(t, err)
	o := &operator{account: acc, claims: jwt.NewAccountClaims(accKey), signer: op}
	accToken, err := o.claims.Encode(op)
	assert.NoError(t, err)
	o.Server = bustest.Server(t, embedded.WithConfig(fmt.Sprintf(
		"operator: %s, resolver: MEMORY, resolver_preload: { %s: %s }", opToken, accKey, accToken)))
	return o
}

// credentials are a user's, good for a time; what they are is read anew for each connection.
type credentials struct {
	t     testing.TB
	op    *operator
	key   string
	kp    nkeys.KeyPair
	token atomic.Pointer[string]
}

func (o *operator) user(t testing.TB) *credentials {
	t.Helper()
	kp, err := nkeys.CreateUser()
	assert.NoError(t, err)
	key, err := kp.PublicKey()
	assert.NoError(t, err)
	return &credentials{t: t, op: o, key: key, kp: kp}
}

// renew issues credentials that are good for a time.
func (c *credentials) renew(good time.Duration) (end time.Time) {
	c.t.Helper()
	claims := jwt.NewUserClaims(c.key)
	end = time.Now().Add(good).Truncate(time.Second)
	claims.Expires = end.Unix()
	token, err := claims.Encode(c.op.account)
	assert.NoError(c.t, err)
	c.token.Store(&token)
	return end
}

func (c *credentials) nats() nats.Option {
	return nats.UserJWT(func() (string, error) { return *c.token.Load(), nil }, c.kp.Sign)
}

func (c *credentials) option() bus.Option { return bus.WithNATS(c.nats()) }

// Row 20: credentials that expire make calls fail as unauthenticated, at once; new ones are taken without a word.
func TestRow20CredentialsExpire(t *testing.T) {
	op := newOperator(t)
	c := op.user(t)
	end := c.renew(2 * time.Second).Add(time.Second)
	b, err := bus.Connect(op.URL(), quiet(), quickly(), c.option())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.add", endpoint.New(add))
	sum := adder(b, "svc.add")
	_, err = sum(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	// In their last second the broker lets them in again, and out.
	assert.Eventually(t, func() bool { return time.Now().After(end) && b.Conn().IsReconnecting() }, "expired")
	hears(t, b)
	refused(t, b)
	c.renew(time.Hour)
	assert.Eventually(t, func() bool {
		_, err = sum(t.Context(), &AddRequest{1, 2})
		return err == nil
	}, "served and called again")
	assert.NoError(t, b.Ready(t.Context()))
	op.Shutdown()
	assert.Eventually(t, func() bool { return b.Conn().IsReconnecting() })
	_, err = sum(t.Context(), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent) // which is another thing
}

// hears waits until the bus knows why its connection is away: nats.go tells that a moment later. Until then it is just away.
func hears(t testing.TB, b *bus.Bus) {
	t.Helper()
	assert.Eventually(t, func() bool {
		_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
		if errors.Is(err, endpoint.Unauthenticated) {
			return true
		}
		failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		return false
	})
}

// refused checks that a bus that the broker does not let in says so of all that it is asked for.
func refused(t testing.TB, b *bus.Bus) {
	t.Helper()
	for range 50 {
		timed(t, soon, func() {
			_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
			failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
			failed(t, b.Ready(t.Context()), endpoint.Unauthenticated, "", endpoint.NotSent)
			_, err = b.Discover(t.Context(), "")
			failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
			failed(t, b.Serve("svc.more", endpoint.New(add)), endpoint.Unauthenticated, "", endpoint.NotSent)
		})
	}
}

// revoke takes a user's credentials back.
func (o *operator) revoke(t testing.TB, c *credentials) {
	t.Helper()
	o.claims.Revoke(c.key)
	token, err := o.claims.Encode(o.signer)
	assert.NoError(t, err)
	ns := o.NATS()
	acc, err := ns.LookupAccount(o.claims.Subject)
	assert.NoError(t, err)
	assert.NoError(t, ns.AccountResolver().Store(o.claims.Subject, token))
	ns.UpdateAccountClaims(acc, o.claims)
}

// Row 20: so do credentials that are revoked. Who has them does not get in, nor back in.
func TestRow20CredentialsRevoked(t *testing.T) {
	op := newOperator(t)
	c := op.user(t)
	c.renew(time.Hour)
	owned, err := bus.Connect(op.URL(), quiet(), quickly(), c.option())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = owned.Close() })
	silent := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	adopt := func(opts ...nats.Option) *bus.Bus {
		nc, err := nats.Connect(op.URL(), append(opts, c.nats(), nats.ReconnectWait(5*time.Millisecond), silent)...)
		assert.NoError(t, err)
		t.Cleanup(nc.Close)
		b, err := bus.New(nc, quiet())
		assert.NoError(t, err)
		return b
	}
	patient, impatient := adopt(nats.IgnoreAuthErrorAbort(), nats.MaxReconnects(-1)), adopt() // which closes after two refusals
	_, err = adder(owned, "svc.add")(t.Context(), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	g := newGate(t)
	respond(t, impatient.Conn(), "svc.slow", func(*nats.Msg) { g.pass() })
	waits := make(chan error, 1)
	go func() {
		_, err := adder(impatient, "svc.slow")(context.Background(), &AddRequest{1, 2})
		waits <- err
	}()
	g.await(t, 1)

	op.revoke(t, c)
	assert.Eventually(t, func() bool { return owned.Conn().IsReconnecting() }, "revoked")
	hears(t, owned)
	refused(t, owned)
	assert.Eventually(t, func() bool {
		_, err := adder(patient, "svc.add")(t.Context(), &AddRequest{1, 2})
		return errors.Is(err, endpoint.Unauthenticated)
	})
	assert.Eventually(t, impatient.Conn().IsClosed)
	refused(t, impatient)
	timed(t, soon, func() {
		failed(t, <-waits, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
	})
	timed(t, soon, func() {
		_, err := bus.Connect(op.URL(), quiet(), c.option())
		failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
	})
	fresh := op.user(t)
	fresh.renew(time.Hour)
	works(t, op.URL(), fresh.option())
}
