package endpoint

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSubject is the longest subject in bytes. The broker closes a connection for good that sends a control line over
// 4 KiB, so subjects stay far below.
const MaxSubject = 512

// ValidateSubject checks a subject that calls go to: tokens joined by dots, none empty, no wildcards, no white space or
// control characters, not under a root that belongs to the broker or to this protocol ($…, _INBOX, _RPC, _R_, _GR_), no
// token that starts with ~, at most [MaxSubject] bytes. The error names the fault.
func ValidateSubject(subject string) error { return validateSubject(subject, false) }

// ValidatePattern is ValidateSubject that also takes the wildcards * (one token) and > (one or more, at the end).
func ValidatePattern(pattern string) error { return validateSubject(pattern, true) }

func validateSubject(s string, wild bool) error {
	fault := func(why string) error { return fmt.Errorf("subject %.80q %s", s, why) }
	switch {
	case s == "":
		return errors.New("the subject is empty")
	case len(s) > MaxSubject:
		return fault(fmt.Sprintf("has %d bytes, at most %d are allowed", len(s), MaxSubject))
	case !utf8.ValidString(s):
		return fault("is not UTF-8")
	case s[0] == '$':
		return fault("starts with $, which belongs to the broker")
	}
	for i, rest, more := 0, s, true; more; i++ {
		var tok string
		tok, rest, more = strings.Cut(rest, ".")
		switch {
		case tok == "":
			return fault("has an empty token")
		case tok == "*" && wild:
		case tok == ">" && wild:
			if more {
				return fault("has > before its end")
			}
		case strings.ContainsAny(tok, "*>"):
			return fault("has a wildcard")
		case tok[0] == '~':
			return fault("has a token that starts with ~, which is reserved")
		case i == 0 && reservedRoot(tok):
			return fault("lies under " + tok + ", which is reserved")
		}
		if strings.ContainsFunc(tok, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			return fault("has white space or a control character")
		}
	}
	return nil
}

func reservedRoot(tok string) bool {
	return tok == "_INBOX" || tok == "_RPC" || tok == "_R_" || tok == "_GR_"
}

// MatchSubject reports whether a subject lies under a pattern. Both must be valid.
func MatchSubject(pattern, subject string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, ".")
		s, srest, smore := strings.Cut(subject, ".")
		if p == ">" {
			return true
		}
		if p != "*" && p != s || pmore != smore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, subject = prest, srest
	}
}

// ValidateServiceName checks a service's or instance's name as ADR-32 has it: letters, digits, - and _.
func ValidateServiceName(name string) error {
	for i := range len(name) {
		if c := name[i]; c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return fmt.Errorf("name %.80q has a character besides letters, digits, - and _", name)
		}
	}
	if name == "" {
		return errors.New("the name is empty")
	}
	return nil
}

// ServiceName derives the name of the service from a subject: all tokens but the last joined by -, or the only token.
// Characters that a name can't have become _.
func ServiceName(subject string) string {
	if i := strings.LastIndexByte(subject, '.'); i >= 0 {
		subject = subject[:i]
	}
	return legalName(subject)
}

// EndpointName derives the name of an endpoint from its subject below a service: . becomes -, what a name can't have _.
func EndpointName(subject string) string { return legalName(subject) }

func legalName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '.':
			return '-'
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z':
			return r
		}
		return '_'
	}, s)
}

// ParseVersion checks a semantic version (https://semver.org, 2.0.0) and returns it without a leading v.
func ParseVersion(v string) (string, error) {
	s := strings.TrimPrefix(v, "v")
	core, build, hasBuild := strings.Cut(s, "+")
	core, pre, hasPre := strings.Cut(core, "-")
	nums := strings.Split(core, ".")
	ok := len(nums) == 3 && (!hasPre || dotted(pre, true)) && (!hasBuild || dotted(build, false))
	for _, n := range nums {
		ok = ok && numeric(n)
	}
	if !ok {
		return "", fmt.Errorf("version %.80q is not a semantic version such as 1.4.0", v)
	}
	return s, nil
}

func numeric(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && (s == "0" || s[0] != '0')
}

// dotted checks the identifiers of a pre-release or build; those of a pre-release have no leading zeros.
func dotted(s string, pre bool) bool {
	for id := range strings.SplitSeq(s, ".") {
		digits := true
		for i := range len(id) {
			c := id[i]
			if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				return false
			}
			digits = digits && c >= '0' && c <= '9'
		}
		if id == "" || pre && digits && !numeric(id) {
			return false
		}
	}
	return true
}
