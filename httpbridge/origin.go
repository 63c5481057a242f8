package httpbridge

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// originPattern is an origin with a star for names below a host, or for the port.
type originPattern struct {
	scheme, host, port string // port "*": any
	below              bool   // host is what names end in, from its dot on
}

// add takes one origin of a policy.
func (c *cors) add(origin string) error {
	if origin == "*" {
		c.any = true
		return nil
	}
	p, err := parseOrigin(origin)
	switch {
	case err != nil:
		return fmt.Errorf("origin %.200q %w", origin, err)
	case c.credentials && p.scheme == "http" && !p.local():
		return fmt.Errorf("origin %.200q: with credentials https is needed, or who is in between acts for the visitor", origin)
	case p.below || p.port == "*":
		c.patterns = append(c.patterns, p)
	default:
		c.exact[origin] = true
	}
	return nil
}

// parseOrigin reads what a browser would send (RFC 6454, 6.2), but for the stars.
func parseOrigin(s string) (p originPattern, err error) {
	switch scheme, rest, ok := strings.Cut(s, "://"); {
	case s == "null":
		return p, errors.New("is anybody's: files, sandboxes and redirects have it")
	case !ok, scheme == "", rest == "":
		return p, errors.New("is not one, such as https://app.example")
	case s != strings.ToLower(s):
		return p, errors.New("has capitals, which no browser sends")
	default:
		p.scheme = scheme
		p.host, p.port = splitPort(rest)
	}
	if p.host, p.below = strings.CutPrefix(p.host, "*"); p.below && (!strings.HasPrefix(p.host, ".") || strings.Count(p.host, ".") < 2) {
		return p, errors.New("has a star that is not for the names below one, as in https://*.app.example")
	}
	plain := p.scheme + "://" + strings.TrimPrefix(p.host, ".")
	if p.port != "" && p.port != "*" {
		plain += ":" + p.port
	}
	u, err := url.Parse(plain)
	if err != nil || u.Host == "" || u.Path != "" || u.User != nil || plain != u.Scheme+"://"+u.Host || strings.Contains(u.Host, "*") {
		return p, errors.New("is not one, such as https://app.example")
	}
	if p.scheme == "https" && p.port == "443" || p.scheme == "http" && p.port == "80" {
		return p, errors.New("names its scheme's own port, which no browser does")
	}
	return p, nil
}

// splitPort splits a host from its port, which may be a star; IPv6 stands in brackets.
func splitPort(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func (p *originPattern) local() bool {
	ip := net.ParseIP(strings.Trim(p.host, "[]"))
	return !p.below && (p.host == "localhost" || ip != nil && ip.IsLoopback())
}

// allows reports whether pages of an origin may call.
func (c *cors) allows(origin string) bool {
	if c.any || c.exact[origin] {
		return true
	}
	for i := range c.patterns {
		if c.patterns[i].matches(origin) {
			return true
		}
	}
	return false
}

func (p *originPattern) matches(origin string) bool {
	scheme, rest, ok := strings.Cut(origin, "://")
	host, port := splitPort(rest)
	if !ok || scheme != p.scheme || p.port == "*" && !digits(port) || p.port != "*" && port != p.port {
		return false
	}
	if !p.below {
		return host == p.host
	}
	label, found := strings.CutSuffix(host, p.host)
	return found && label != "" && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" && label[0] != '.'
}

// digits takes a port, or none.
func digits(s string) bool { return len(s) <= 5 && strings.Trim(s, "0123456789") == "" }
