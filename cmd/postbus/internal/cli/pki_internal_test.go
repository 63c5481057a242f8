package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// PKI is an authority and one certificate of it, good for both sides of a connection to this machine.
type PKI struct {
	CA, Cert, Key string // files
	CAPEM         []byte

	authority *x509.Certificate
	signer    *ecdsa.PrivateKey
}

// NewPKI makes one.
func NewPKI(t *testing.T) *PKI {
	t.Helper()
	dir := t.TempDir()
	p := &PKI{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	var err error
	p.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	p.authority = template(1)
	p.authority.IsCA, p.authority.BasicConstraintsValid, p.authority.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, p.authority, p.authority, &p.signer.PublicKey, p.signer)
	assert.NoError(t, err)
	p.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	assert.NoError(t, os.WriteFile(p.CA, p.CAPEM, 0o600))
	p.issue(t)
	return p
}

// issue writes a certificate.
func (p *PKI) issue(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template(2), p.authority, &key.PublicKey, p.signer)
	assert.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	assert.NoError(t, err)
	assert.NoError(t, os.WriteFile(p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	assert.NoError(t, os.WriteFile(p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

func template(serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "postbus"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Pair reads the certificate.
func (p *PKI) Pair(t *testing.T) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	assert.NoError(t, err)
	return c
}
