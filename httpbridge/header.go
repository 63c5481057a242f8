package httpbridge

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"postbus.example/endpoint"
)

// WithHeaders names the headers that pass: in, from the client to the endpoint as metadata of the call, and out, from the
// endpoint's reply to the client (metadata of a reply's end under Trailer-…, as Connect has it). A name may be exact, "X-Tenant", end
// in a star, "X-Acme-*", or be a star alone; "!baggage" takes a name back. Case doesn't matter. Several WithHeaders add up.
//
// By default in is traceparent, tracestate and baggage, and out is empty; a bridge at the edge of trust may say
// "!traceparent".
//
// Authorization, X-API-Key, Set-Cookie, Forwarded, X-Forwarded-… and Access-Control-… pass only when named exactly, not by a star.
// Never, by any name, pass: headers of the connection (RFC 9110, 7.6.1), Cookie, Host, Accept, Accept-Encoding, Content-Type,
// Content-Encoding, Content-Length, Connect-…, Grpc-…, Trailer-…, and what belongs to the bus or to this bridge: Nats-…, Rpc-…,
// Status, Description, Postbus-…. Naming one of those exactly is a fault.
// A value with CR, LF or NUL is refused with 400 on the way in; on the way out, one with a control character other than a
// tab is left out and logged.
func WithHeaders(in, out []string) Option {
	return func(s *settings) {
		s.fault("WithHeaders", errors.Join(s.in.add(in), s.out.add(out)))
	}
}

// headerList is an allow-list. Its keys are canonical.
type headerList struct {
	exact    map[string]bool // false: taken back
	prefixes []string        // "" is the star alone
}

func defaultIn() headerList {
	l := headerList{}
	for _, name := range w3c {
		l.set(textproto.CanonicalMIMEHeaderKey(name), true)
	}
	return l
}

// w3c are the names that stand in lower case on the bus, where case matters to some.
var w3c = []string{"traceparent", "tracestate", "baggage"}

func (l *headerList) set(name string, pass bool) {
	if l.exact == nil {
		l.exact = map[string]bool{}
	}
	l.exact[name] = pass
}

func (l *headerList) add(names []string) error {
	var errs []error
	for _, name := range names {
		bare, back := strings.CutPrefix(name, "!")
		prefix, star := strings.CutSuffix(bare, "*")
		key := textproto.CanonicalMIMEHeaderKey(prefix)
		switch {
		case star && back:
			errs = append(errs, fmt.Errorf("%q: only exact names can be taken back", name))
		case !token(prefix) && (!star || prefix != ""):
			errs = append(errs, fmt.Errorf("%.80q is not the name of a header", name))
		case star:
			l.prefixes = append(l.prefixes, key)
		case !back && neverPasses(key):
			errs = append(errs, fmt.Errorf("%q never passes", name))
		default:
			l.set(key, !back)
		}
	}
	return errors.Join(errs...)
}

// token is that of RFC 9110, 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// allows judges a canonical name.
func (l *headerList) allows(name string) bool {
	if pass, named := l.exact[name]; named {
		return pass
	}
	return len(l.prefixes) > 0 && !neverPasses(name) && !onlyByName(name) &&
		slices.ContainsFunc(l.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// named returns the exact names that pass.
func (l *headerList) named() []string {
	var names []string
	for name, pass := range l.exact {
		if pass {
			names = append(names, name)
		}
	}
	return names
}

// some reports whether any header may pass.
func (l *headerList) some() bool {
	for _, pass := range l.exact {
		if pass {
			return true
		}
	}
	return len(l.prefixes) > 0
}

// own are the headers of HTTP, of the connection and of this bridge.
var own = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info", "Cookie", "Host", "Expect", "Date",
	"Accept-Encoding", "Content-Length", "Content-Range", "X-Content-Type-Options",
}

func neverPasses(name string) bool {
	return endpoint.ReservedHeader(name) || slices.Contains(own, name) || strings.HasPrefix(name, "Connect-") ||
		strings.HasPrefix(name, "Grpc-") || strings.HasPrefix(name, "Trailer-") || strings.HasPrefix(name, "Postbus-")
}

func onlyByName(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Set-Cookie", "Forwarded", "X-Real-Ip":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Access-Control-")
}

// checkHeaders bounds what a request's headers weigh.
func (x *exchange) checkHeaders() error {
	size := 0
	for name, values := range x.r.Header {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	if size > x.limits.Header {
		return endpoint.InvalidArgument.Errorf("headers of %d bytes, at most %d are taken", size, x.limits.Header).
			WithReason(endpoint.ReasonHeaderTooLarge).WithOutcome(endpoint.NotSent)
	}
	return nil
}

// inbound adds the client's headers that pass to the metadata of the call, but for names that were set on this side.
func (x *exchange) inbound(ctx context.Context) (context.Context, error) {
	var kv []string
	ours := endpoint.HeaderFrom(ctx)
	for name, values := range x.r.Header {
		if !x.in.allows(name) || x.hopByHop(name) || ours.Values(name) != nil {
			continue
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return nil, endpoint.InvalidArgument.Errorf("header %q: its value has CR, LF or NUL", name).WithOutcome(endpoint.NotSent)
			}
			kv = append(kv, spelling(name), v)
		}
	}
	if len(kv) == 0 {
		return ctx, nil
	}
	return endpoint.WithHeader(ctx, kv...), nil
}

func spelling(name string) string {
	for _, lower := range w3c {
		if strings.EqualFold(name, lower) {
			return lower
		}
	}
	return name
}

// hopByHop reports whether the request itself says that a header ends here (RFC 9110, 7.6.1).
func (x *exchange) hopByHop(name string) bool {
	for _, line := range x.r.Header["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}

// outbound gives the client the headers of a reply that pass. It is the same for success and failure.
func (x *exchange) outbound(report *endpoint.Report) {
	if x.called != nil {
		x.called.header, x.called.trailer = x.passing(&report.Reply), x.passing(&report.Trailer)
		return
	}
	x.copyOut(&report.Reply, "")
	x.copyOut(&report.Trailer, "Trailer-")
}

func (x *exchange) copyOut(from *endpoint.Header, prefix string) {
	for key, values := range x.passing(from) {
		x.w.Header()[textproto.CanonicalMIMEHeaderKey(prefix+key)] = values
	}
}

// passing returns those of a reply's headers that may pass, under canonical names.
func (x *exchange) passing(from *endpoint.Header) http.Header {
	h := http.Header{}
	x.pass(from, h)
	return h
}

// pass adds those of a reply's headers that may pass.
func (x *exchange) pass(from *endpoint.Header, to http.Header) {
	for name, value := range from.All() {
		key := textproto.CanonicalMIMEHeaderKey(name)
		if !token(name) || !x.out.allows(key) {
			continue
		}
		if !legible(value) {
			x.log.Warn("a reply's header is left out: its value has a control character", "subject", x.subject, "header", name)
			continue
		}
		to.Add(key, value)
	}
}

// legible reports whether HTTP has a way to write a value (RFC 9110, 5.5). Of one that it has none for, clients make a
// broken connection.
func legible(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// replyType is the media type that a reply is sent as: the request's if it has none, or one that can't be read.
func (x *exchange) replyType(reply, request string) string {
	if reply == "" || reply == request {
		return request
	}
	if _, _, err := mime.ParseMediaType(reply); err != nil || !legible(reply) {
		x.log.Warn("a reply's media type can't be read; the request's stands for it", "subject", x.subject, "type", reply)
		return request
	}
	return reply
}
