package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"
)

func (c *bridgeCmd) checkTLS(f *faults) {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		f.addf("", "--tls-cert and --tls-key go together")
	case c.TLSCert != "":
		_, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		f.add("--tls-cert, --tls-key", err)
	case c.TLSClientCA != "":
		f.addf("--tls-client-ca", "needs --tls-cert and --tls-key")
	}
	if c.TLSClientCA != "" {
		_, err := authorities(c.TLSClientCA)
		f.add("--tls-client-ca", err)
	}
}

// tls is nil where HTTP is served in the clear.
func (c *bridgeCmd) tls(log *slog.Logger) *tls.Config {
	if c.TLSCert == "" {
		return nil
	}
	served := &certificate{cert: c.TLSCert, key: c.TLSKey, log: log}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: served.get}
	if c.TLSClientCA != "" {
		pool, err := authorities(c.TLSClientCA)
		if err != nil {
			pool = x509.NewCertPool() // it was there a moment ago; an empty pool lets nobody in
		}
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return config
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := readAll(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("has no certificate")
	}
	return pool, nil
}

// certLook is how often a certificate's files are looked at, when somebody connects.
const certLook = 10 * time.Second

// certificate reads its files anew when they changed. If that fails, the old one goes on.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time
	changed [2]time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.looked) < certLook {
		return c.current, nil
	}
	c.looked = time.Now()
	changed := [2]time.Time{modified(c.cert), modified(c.key)}
	if c.current != nil && changed == c.changed {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
		c.current, c.changed = &pair, changed
	case c.current == nil:
		return nil, err
	default:
		c.log.Error("the new certificate can't be read; the old one goes on", slog.Any("error", err))
	}
	return c.current, nil
}

func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
