package httpbridge

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"postbus.example/endpoint"
)

// Route gives a subject a path of its own, as REST has it:
//
//	httpbridge.Route("GET /v1/users/{id}", "users.get")
//	httpbridge.Route("PUT /v1/users/{id}", "users.put")
//
// The pattern is a method (GET, POST, PUT, PATCH or DELETE) and a path in the syntax of [http.ServeMux], {name} and
// {rest...} included, without a host. GET takes HEAD as well. Several Routes add up, also for one subject; of two that match a
// request the more specific one gets it. Two that conflict, a pattern that can't be read, and a path that the bridge answers
// itself are faults. A path must be asked for as it is: unlike a ServeMux, the bridge redirects nobody to a cleaner one.
//
// Values of the path and of the query become fields of the request, and members of the body (a JSON object, where there is
// one) the others. The request schema that the endpoint publishes says what a value becomes: an integer, a number, a boolean,
// a string, or an array of these, by repeating the parameter. Names are matched as encoding/json does: as they are, else
// regardless of case. Without a schema, and for names that it doesn't have, values are strings. What does not convert is
// refused with 400, and so is a field that is given twice: neither the path nor the body wins silently. Fields of fields can't
// be given but in a body. Where neither path nor query has a value, a body passes through untouched, of any media type.
//
// A reply is 200 with its body, also one without fields. GET has an ETag, and answers 304 to If-None-Match. A stream is answered
// as on its subject's path, by events or lines of JSON; it is called by one message, and if it takes many and neither path nor
// query has a value, by lines. There is no HEAD of a stream. Requests of a [Protocol] never go to routes.
//
// A route is the word of whoever runs the bridge: it needs no [Expose] and makes nothing else reachable. Any endpoint may
// stand under GET, but since any page can make a browser send a GET, name only those that change nothing. For the
// other methods the rules against forged requests hold, as on any path: POST needs a Content-Type even without a body.
//
// A route goes before the subject of the same path, for its method; other methods reach the subject, if it is exposed.
func Route(pattern, subject string) Option {
	return func(s *settings) {
		r, err := newRoute(pattern, subject)
		if err != nil {
			s.fault("Route", err)
			return
		}
		s.routes = append(s.routes, r)
	}
}

// route is one pattern and what it leads to.
type route struct {
	method   string
	path     string
	segments []string // of the path, without the first slash
	names    []string // of its wildcards
	subject  string
	target   *target
}

// ServeHTTP makes a route what an http.ServeMux has; it is never called.
func (*route) ServeHTTP(http.ResponseWriter, *http.Request) {}

func newRoute(pattern, subject string) (*route, error) {
	method, path, found := strings.Cut(pattern, " ")
	path = strings.TrimLeft(path, " \t")
	switch {
	case !found || !slices.Contains(routeMethods, method):
		return nil, fmt.Errorf("pattern %.200q: must begin with one of %s", pattern, strings.Join(routeMethods, ", "))
	case !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("pattern %.200q: the path must begin with a slash, without a host", pattern)
	}
	if err := endpoint.ValidateSubject(subject); err != nil {
		return nil, fmt.Errorf("pattern %.200q: %w", pattern, err)
	}
	if !ordinary(subject) {
		return nil, fmt.Errorf("pattern %.200q: subject %q has a token that belongs to the broker, or a character that can't be seen",
			pattern, subject)
	}
	r := &route{method: method, path: path, segments: strings.Split(path[1:], "/"), subject: subject}
	for _, s := range r.segments {
		if name, ok := wildcard(s); ok && name != "" {
			r.names = append(r.names, name)
		}
	}
	return r, nil
}

var routeMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// wildcard returns the name in {name} and {name...}; it is "" for {$}.
func wildcard(segment string) (name string, ok bool) {
	inner, opened := strings.CutPrefix(segment, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if !opened || !closed {
		return "", false
	}
	if inner == "$" {
		return "", true
	}
	return strings.TrimSuffix(inner, "..."), true
}

// values reads the wildcards of a path that matches, in order. What stands between slashes is unescaped here and not before,
// so that a value may have a slash.
func (r *route) values(escaped string) []field {
	if len(r.names) == 0 {
		return nil
	}
	var fields []field
	rest := strings.TrimPrefix(escaped, "/")
	for _, s := range r.segments {
		part := rest
		if !strings.HasSuffix(s, "...}") {
			part, rest, _ = strings.Cut(rest, "/")
		}
		name, ok := wildcard(s)
		if !ok || name == "" {
			continue
		}
		if plain, err := url.PathUnescape(part); err == nil {
			part = plain
		}
		fields = append(fields, field{name: name, in: "path", values: []string{part}})
	}
	return fields
}

// routes finds routes; nil has none.
type routes struct {
	mux *http.ServeMux
	all []*route
}

// newRoutes finds what is wrong with routes only together.
func newRoutes(s *settings, e *exposure) *routes {
	if len(s.routes) == 0 {
		return nil
	}
	rs := &routes{mux: http.NewServeMux(), all: s.routes}
	var errs []error
	for _, r := range rs.all {
		r.target = e.target(r.subject, true)
		if by, taken := s.own[r.path]; taken {
			errs = append(errs, fmt.Errorf("pattern %q: the bridge answers %s itself%s", r.method+" "+r.path, r.path, by))
		} else if err := rs.register(r); err != nil {
			errs = append(errs, err)
		}
	}
	s.fault("Route", errors.Join(errs...))
	return rs
}

// registered is where in a program a ServeMux got a pattern: always here.
var registered = regexp.MustCompile(` \(registered at [^)]*\)`)

func (rs *routes) register(r *route) (err error) {
	pattern := r.method + " " + r.path
	defer func() {
		if p := recover(); p != nil { // the way in which a ServeMux refuses
			said, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			said = strings.TrimSuffix(registered.ReplaceAllString(said, ""), ":")
			if !strings.HasPrefix(said, "pattern") {
				said = fmt.Sprintf("pattern %.200q: %s", pattern, said)
			}
			err = errors.New(said)
		}
	}()
	rs.mux.Handle(pattern, r)
	return nil
}

// find returns the route of a request, or the methods that its path has routes for.
func (rs *routes) find(r *http.Request) (*route, string) {
	if rs == nil {
		return nil, ""
	}
	if !strings.HasPrefix(r.URL.Path, "/") { // what http.StripPrefix may leave
		u := *r.URL
		u.Path = "/" + u.Path
		if u.RawPath != "" {
			u.RawPath = "/" + u.RawPath
		}
		r = &http.Request{Method: r.Method, URL: &u}
	}
	h, _ := rs.mux.Handler(r)
	if found, ok := h.(*route); ok {
		return found, ""
	}
	var told unwritten
	h.ServeHTTP(&told, r)
	return nil, rs.exactly(r.URL, told.header.Get("Allow"))
}

// exactly keeps those methods that have a route for a path as it is. A ServeMux tells those for the path with a slash behind
// it as well, since it would redirect there.
func (rs *routes) exactly(u *url.URL, allow string) string {
	if allow == "" {
		return ""
	}
	methods := slices.DeleteFunc(strings.Split(allow, ", "), func(method string) bool {
		h, _ := rs.mux.Handler(&http.Request{Method: method, URL: u})
		_, found := h.(*route)
		return !found
	})
	return strings.Join(methods, ", ")
}

func (rs *routes) list() []*route {
	if rs == nil {
		return nil
	}
	return rs.all
}

// reach reports whether a route leads to a subject.
func (rs *routes) reach(subject string) bool {
	return slices.ContainsFunc(rs.list(), func(r *route) bool { return r.subject == subject })
}

// both joins two lists of methods, as Allow has them.
func both(a, b string) string {
	methods := slices.Concat(strings.Split(a, ", "), strings.Split(b, ", "))
	slices.Sort(methods)
	return strings.TrimPrefix(strings.Join(slices.Compact(methods), ", "), ", ")
}

// unwritten hears what a ServeMux would answer.
type unwritten struct{ header http.Header }

func (u *unwritten) Header() http.Header {
	if u.header == nil {
		u.header = http.Header{}
	}
	return u.header
}

func (u *unwritten) Write(p []byte) (int, error) { return len(p), nil }
func (u *unwritten) WriteHeader(int)             {}
