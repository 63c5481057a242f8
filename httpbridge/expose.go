package httpbridge

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// Expose makes subjects reachable: exact ones, or patterns with * for one token and > for one or more at the end
// ("math.*", "acme.>"). Several Expose add up. A subject that is exposed exactly and has nobody behind it is answered with
// 503; under a pattern that is 503 only for what was seen there before, else 404.
//
// A subject that no path leads to is a fault: one with a character that paths must escape (a?b, a/b, a|b), and healthz and
// readyz, which the bridge answers itself. By default nothing is exposed.
func Expose(subjects ...string) Option {
	return func(s *settings) {
		for _, subject := range subjects {
			switch err := reachable(subject); {
			case err != nil:
				s.fault("Expose", err)
			case endpoint.ValidateSubject(subject) == nil:
				s.exact = append(s.exact, subject)
			default:
				s.patterns = append(s.patterns, subject)
			}
		}
	}
}

// reachable tells why no path leads to a subject, or to any that a pattern matches.
func reachable(pattern string) error {
	if err := endpoint.ValidatePattern(pattern); err != nil {
		return err
	}
	if pattern == "healthz" || pattern == "readyz" {
		return fmt.Errorf("subject %q can't be reached: the bridge answers /%s itself", pattern, pattern)
	}
	if !ordinary(pattern) {
		return fmt.Errorf("subject %q has a token that belongs to the broker, or a character that can't be seen", pattern)
	}
	subject := anyOf(pattern)
	if u, err := url.ParseRequestURI("/" + subject); err == nil {
		if got, ok := subjectOf(u); ok && got == subject {
			return nil
		}
	}
	return fmt.Errorf("subject %q can't be reached: it has a character that no path has as it is", pattern)
}

// anyOf gives a subject that a pattern matches.
func anyOf(pattern string) string {
	tokens := strings.Split(pattern, ".")
	for i, tok := range tokens {
		if tok == "*" || tok == ">" {
			tokens[i] = "x"
		}
	}
	return strings.Join(tokens, ".")
}

// exposure knows what was named, and the callers of it.
type exposure struct {
	transport endpoint.Transport
	exact     map[string]*target
	paths     map[string]*target // exact, by the paths that nearly everybody uses
	patterns  []string
	answered  sync.Map // of subjects under a pattern: *target
	count     atomic.Int64
}

// target is one subject and its caller.
type target struct {
	subject string
	exact   bool // named as it is, not by a pattern
	shape   shapeCache
	caller  func() endpoint.Unary[*codec.Payload, *codec.Payload]
	streams sync.Map // of media types: *callers
}

func newExposure(t endpoint.Transport, exact, patterns []string) *exposure {
	e := &exposure{transport: t, exact: map[string]*target{}, paths: map[string]*target{}, patterns: patterns}
	for _, subject := range exact {
		t := e.target(subject, true)
		e.exact[subject] = t
		e.paths["/"+strings.ReplaceAll(subject, ".", "/")] = t
		if i := strings.LastIndexByte(subject, '.'); i >= 0 {
			e.paths["/"+subject[:i]+"/"+subject[i+1:]] = t // Connect's
		}
	}
	return e
}

// at returns what a URL's path leads to, nil if that is nothing.
func (e *exposure) at(u *url.URL) *target {
	if t := e.paths[u.Path]; t != nil && u.RawPath == "" {
		return t
	}
	subject, ok := subjectOf(u)
	if !ok {
		return nil
	}
	return e.find(subject)
}

// target makes the caller at its first use, so that it has the middleware which the transport was given meanwhile.
func (e *exposure) target(subject string, exact bool) *target {
	return &target{subject: subject, exact: exact, caller: sync.OnceValue(func() endpoint.Unary[*codec.Payload, *codec.Payload] {
		return endpoint.Caller[*codec.Payload, *codec.Payload](e.transport, subject)
	})}
}

// exposes reports whether a subject was named, or a pattern that matches it.
func (e *exposure) exposes(subject string) bool {
	if e.exact[subject] != nil {
		return true
	}
	return endpoint.ValidateSubject(subject) == nil && ordinary(subject) &&
		slices.ContainsFunc(e.patterns, func(p string) bool { return endpoint.MatchSubject(p, subject) })
}

// find returns nil for what is not exposed.
func (e *exposure) find(subject string) *target {
	if t := e.exact[subject]; t != nil {
		return t
	}
	if t, ok := e.answered.Load(subject); ok {
		return t.(*target)
	}
	for _, p := range e.patterns {
		if endpoint.MatchSubject(p, subject) {
			return e.target(subject, false)
		}
	}
	return nil
}

// maxAnswered bounds the memory of what answered: a service that listens on a wildcard answers to any name.
const maxAnswered = 4096

// keep remembers a target that somebody answered for.
func (e *exposure) keep(t *target) {
	if t.exact {
		return
	}
	if _, known := e.answered.Load(t.subject); known {
		return
	}
	if e.count.Add(1) > maxAnswered {
		e.count.Add(-1)
		return
	}
	if _, raced := e.answered.LoadOrStore(t.subject, t); raced {
		e.count.Add(-1)
	}
}

// known reports whether somebody answered on the subject before.
func (e *exposure) known(subject string) bool {
	_, ok := e.answered.Load(subject)
	return ok
}

// subjectOf reads a path as a subject. What is no subject that a call may go to is refused here, before any pattern is
// asked, whatever the transport would make of it.
func subjectOf(u *url.URL) (string, bool) {
	if escapesASCII(u.EscapedPath()) {
		return "", false // no subject needs it: it only hides a slash, a dot, a wildcard or worse
	}
	subject := strings.ReplaceAll(strings.TrimPrefix(u.Path, "/"), "/", ".")
	if endpoint.ValidateSubject(subject) != nil || !ordinary(subject) {
		return "", false
	}
	return subject, true
}

// escapesASCII finds a percent-encoded ASCII character, or a broken encoding.
func escapesASCII(path string) bool {
	for {
		_, rest, found := strings.Cut(path, "%")
		if !found {
			return false
		}
		if rest == "" || rest[0] < '8' {
			return true
		}
		path = rest
	}
}

// ordinary reports whether a valid subject has only tokens that applications use, in characters that can be seen. It is
// stricter than the transport: names of the broker are kept out of any place, not the first alone.
func ordinary(subject string) bool {
	for tok := range strings.SplitSeq(subject, ".") {
		if strings.HasPrefix(tok, "$") || strings.HasPrefix(tok, "_INBOX") {
			return false
		}
	}
	for _, r := range subject {
		if r >= utf8.RuneSelf && (unicode.IsSpace(r) || !unicode.IsGraphic(r)) {
			return false
		}
	}
	return utf8.ValidString(subject)
}
