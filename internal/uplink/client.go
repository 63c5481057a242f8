package uplink

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// client is what nats.go makes TLS of. What it would do, in any case, TLS beneath our connections does, too: where that
// can't be told it is left to nats.go, on top.
type client struct {
	config      *tls.Config
	certificate nats.TLSCertHandler
	roots       nats.RootCAsHandler
	given       map[string]bool // addresses that the user gave
	never       bool            // there is more between the protocol and the network than TLS
}

func clientOf(o *nats.Options) client {
	c := client{config: o.TLSConfig, certificate: o.TLSCertCB, roots: o.RootCAsCB, given: map[string]bool{}}
	for _, s := range append(slices.Clone(o.Servers), o.Url) {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			continue // nats.go will say so
		}
		c.given[net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), strconv.Itoa(nats.DefaultPort)))] = true
		c.never = c.never || strings.HasPrefix(u.Scheme, "ws")
	}
	return c
}

// at returns the configuration that nats.go would use for a connection to an address, nil where that can't be told.
func (c *client) at(address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if err != nil || c.never {
		return nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.config != nil {
		config = c.config.Clone()
	}
	if config.ServerName == "" {
		if net.ParseIP(host) != nil && !c.given[address] {
			return nil // the broker told us of it: nats.go may have kept the name of the server that did
		}
		config.ServerName = host
	}
	if c.certificate != nil {
		cert, err := c.certificate()
		if err != nil {
			return nil // nats.go meets the same, and says so
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if c.roots != nil {
		if config.RootCAs, err = c.roots(); err != nil {
			return nil
		}
	}
	return config
}
