package httpbridge

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// CORSPolicy says which web pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol).
type CORSPolicy struct {
	// Origins are the origins of pages that may call, at least one: "https://app.example", with a port if it is not the
	// scheme's own; "https://*.app.example" for all below a name, at any depth; "http://localhost:*" for any port. "*" lets any page
	// in. "null" is none: files, sandboxes and redirects share it.
	Origins []string

	// Credentials lets pages call with what the browser has: cookies, client certificates. It goes neither with "*" nor with an
	// origin of plain http but this machine's. Tokens and keys that a page sends by itself don't need it. By default off.
	Credentials bool

	// Headers are further request headers that pages may send, besides those of Connect, gRPC-Web, streams and this bridge,
	// and what passes by [WithHeaders]; Authorization and X-API-Key are among them under [WithAuth].
	Headers []string

	// Expose are further headers of answers that pages may read, besides those of Connect, gRPC-Web and this bridge, and what
	// [WithHeaders] lets out by its exact name; without Credentials, a star there lets them read all.
	Expose []string

	// MaxAge is for how long a browser remembers what it was told, in whole seconds. By default two hours; negative: not at all.
	MaxAge time.Duration

	// PrivateNetwork lets pages of the internet call into the private network where this bridge is
	// (https://wicg.github.io/private-network-access). By default off.
	PrivateNetwork bool
}

// WithCORS lets web pages of other origins call. Preflights are answered on any path, without authentication, since browsers
// send them without; all other answers, errors too, have what lets the page read them. What else a call needs stays as it is,
// but [http.CrossOriginProtection] trusts these origins. A preflight of another origin is 403.
//
// By default no page of another origin may call.
func WithCORS(p CORSPolicy) Option {
	return func(s *settings) {
		c, err := newCORS(&p)
		if s.cors != nil {
			err = errors.Join(err, errors.New("given twice; which one counts would be a guess"))
		}
		s.fault("WithCORS", err)
		s.cors = c
	}
}

// cors is what a policy means. It never changes once the bridge is made.
type cors struct {
	any         bool
	exact       map[string]bool
	patterns    []originPattern
	credentials bool
	private     bool
	more        []string // of the policy: canonical names
	expose      []string
	maxAge      string

	allowed headerList // of requests, besides what WithHeaders lets in
	lists   corsLists
}

// corsLists are values of headers, each with the one line that it has. Nobody changes them.
type corsLists struct{ headers, expose, maxAge, vary, preflightVary []string }

// Pages may send and read these, besides what is safe in any case.
var (
	corsHeaders = []string{
		"Content-Type", "Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Connect-Content-Encoding", "Connect-Accept-Encoding",
		"Grpc-Timeout", "Grpc-Encoding", "Grpc-Accept-Encoding", "X-Grpc-Web", "X-User-Agent", "If-None-Match", "Last-Event-Id",
	}
	corsExpose = []string{
		"Content-Encoding", "Connect-Content-Encoding", "Connect-Accept-Encoding", "Grpc-Status", "Grpc-Message",
		"Grpc-Status-Details-Bin", "Grpc-Encoding", "Grpc-Accept-Encoding", "Etag", "Retry-After", "Www-Authenticate", "Allow", "Accept-Post",
	}
)

const corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"

func newCORS(p *CORSPolicy) (*cors, error) {
	c := &cors{exact: map[string]bool{}, credentials: p.Credentials, private: p.PrivateNetwork}
	var faults []error
	for _, o := range p.Origins {
		faults = append(faults, c.add(o))
	}
	if len(p.Origins) == 0 {
		faults = append(faults, errors.New("there is no origin"))
	}
	if c.any && c.credentials {
		faults = append(faults, errors.New(`any origin, "*", with credentials: every page would act for its visitor`))
	}
	names := func(list []string) (canonical []string) {
		for _, n := range list {
			if n == "*" || !token(n) {
				faults = append(faults, fmt.Errorf("%.80q is not the name of a header", n))
			}
			canonical = append(canonical, textproto.CanonicalMIMEHeaderKey(n))
		}
		return canonical
	}
	c.more, c.expose = names(p.Headers), names(p.Expose)
	age := p.MaxAge
	defaultTo(&age, 2*time.Hour)
	c.maxAge = strconv.Itoa(int(max(age, 0) / time.Second))
	return c, errors.Join(faults...)
}

// complete adds what the other options say.
func (c *cors) complete(s *settings) {
	headers, expose := slices.Concat(corsHeaders, c.more), slices.Concat(corsExpose, c.expose)
	if s.auth != nil {
		headers = append(headers, "Authorization", "X-Api-Key")
	}
	headers = append(headers, s.in.named()...)
	for _, name := range s.out.named() {
		expose = append(expose, name, "Trailer-"+name)
	}
	if len(s.out.prefixes) > 0 && !c.credentials {
		expose = []string{"*"} // with credentials it would be a header of that name
	}
	c.allowed = s.in
	one := func(values ...string) []string { return []string{strings.Join(values, ", ")} }
	slices.Sort(headers)
	slices.Sort(expose)
	c.lists = corsLists{
		headers: one(slices.Compact(headers)...), expose: one(slices.Compact(expose)...), maxAge: one(c.maxAge),
		vary:          one("Origin"),
		preflightVary: one("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers", "Access-Control-Request-Private-Network"),
	}
}

// cross sets what lets a page read the answer. It reports whether the request was a preflight, and is answered.
func (x *exchange) cross() (answered bool, err error) {
	c, h := x.cors, x.w.Header()
	origin := x.r.Header["Origin"]
	preflight := x.r.Method == http.MethodOptions && len(origin) > 0 && x.r.Header["Access-Control-Request-Method"] != nil
	vary := c.lists.vary
	if preflight {
		vary = c.lists.preflightVary
	}
	if vary != nil {
		h["Vary"] = append(h["Vary"], vary...)
	}
	switch {
	case len(origin) == 0:
		return false, nil
	case len(origin) > 1 || !c.allows(origin[0]):
		if preflight {
			return true, endpoint.PermissionDenied.Errorf("pages of the origin %.200q may not call", strings.Join(origin, ", ")).WithOutcome(endpoint.NotSent)
		}
		return false, nil
	case c.any:
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		h.Set("Access-Control-Allow-Origin", origin[0])
	}
	if c.credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		h["Access-Control-Expose-Headers"] = c.lists.expose
		return false, nil
	}
	x.preflight()
	return true, nil
}

// preflight answers a browser that asks first.
func (x *exchange) preflight() {
	c, h := x.cors, x.w.Header()
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h["Access-Control-Allow-Headers"] = c.lists.headers
	if also := c.also(x.r.Header["Access-Control-Request-Headers"]); also != "" {
		h.Set("Access-Control-Allow-Headers", c.lists.headers[0]+", "+also)
	}
	h["Access-Control-Max-Age"] = c.lists.maxAge
	if c.private && x.r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	x.answering()
	x.w.WriteHeader(http.StatusNoContent)
}

// also are names that a browser asks for which pass by a star of WithHeaders.
func (c *cors) also(asked []string) string {
	if len(c.allowed.prefixes) == 0 {
		return ""
	}
	var names []string
	for name := range strings.SplitSeq(strings.Join(asked, ","), ",") {
		name = textproto.TrimString(name)
		if token(name) && c.allowed.allows(textproto.CanonicalMIMEHeaderKey(name)) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// sameOrigin keeps other origins' pages out (https://pkg.go.dev/net/http#CrossOriginProtection), but for those that may
// call.
type sameOrigin struct {
	*http.CrossOriginProtection

	cors *cors
}

func (s sameOrigin) Check(r *http.Request) error {
	if s.cors != nil && len(r.Header["Origin"]) == 1 && s.cors.allows(r.Header["Origin"][0]) {
		return nil
	}
	return s.CrossOriginProtection.Check(r)
}
