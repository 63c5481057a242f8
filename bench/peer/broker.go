package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/embedded"
)

// Brokers are the ways in which the broker may be set up, the default first.
func Brokers() []string { return []string{"plain", "tls", "permissions"} }

// Broker starts a nats-server with its own defaults; over TLS; or with permissions under which services may publish nothing but
// replies to those who asked (allow_responses), and clients receive nothing but replies.
func Broker(kind string) (url string, err error) {
	var opts []embedded.Option
	var trust string
	switch kind {
	case "tls":
		cert, err := certificate()
		if err != nil {
			return "", err
		}
		opts = append(opts, embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13}))
		trust = trustMark + base64.RawURLEncoding.EncodeToString(cert.Certificate[0])
	case "permissions":
		opts = append(opts, embedded.WithConfig(`authorization { users: [
			{ user: service, password: service, permissions: { subscribe: ">", publish: { deny: ">" }, allow_responses: { max: -1, expires: "1h" } } }
			{ user: client, password: client, permissions: { subscribe: "_INBOX.>", publish: ">" } }
		] }`))
	}
	s, err := embedded.Start(opts...)
	if err != nil {
		return "", err
	}
	return s.URL() + trust, nil
}

// side is who connects: brokers with permissions tell them apart, and others ask nobody.
type side string

const (
	serving side = "service"
	calling side = "client"
)

const trustMark = "#trust=" // behind a broker's URL stands whom its clients trust

// options split what Broker returned into a URL and what a connection needs for it.
func (s side) options(url string) (string, []nats.Option, error) {
	url, trust, secured := strings.Cut(url, trustMark)
	opts := []nats.Option{nats.UserInfo(string(s), string(s))}
	if !secured {
		return url, opts, nil
	}
	der, err := base64.RawURLEncoding.DecodeString(trust)
	if err != nil {
		return "", nil, fmt.Errorf("trust: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", nil, fmt.Errorf("trust: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return url, append(opts, nats.Secure(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})), nil
}

// connect is nats.Connect.
func (s side) connect(url string) (*nats.Conn, error) {
	url, opts, err := s.options(url)
	if err != nil {
		return nil, err
	}
	return nats.Connect(url, opts...)
}

// certificate is one for the loopback interface that signs itself.
func certificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
