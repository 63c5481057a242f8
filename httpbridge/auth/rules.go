package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// Requirement is what calls of some subjects need. It is made by [Rule].
type Requirement struct {
	pattern string
	scopes  []string
}

// Rule says that calls of a subject, or of all subjects that a pattern matches ("math.*", "acme.>"), need all of the scopes.
// Without scopes it asks for nothing but an identity, which is of use in [StrictRules].
func Rule(pattern string, scopes ...string) Requirement {
	return Requirement{pattern, slices.Clone(scopes)}
}

// Rules makes a function for httpbridge.WithAuthorization: a call needs what each rule says that matches its subject. So
// their order doesn't matter, and to add one never opens anything. An endpoint that no rule matches needs authentication
// only: if that is not what is meant, see [StrictRules]. The error joins all faults: bad patterns, empty scopes.
//
// It goes by the identity in the context. Where there is none, a call that any rule matches is unauthenticated.
func Rules(rules ...Requirement) (func(ctx context.Context, subject string) error, error) {
	return judge(rules, false)
}

// StrictRules is Rules, but what no rule matches is denied to everybody.
func StrictRules(rules ...Requirement) (func(ctx context.Context, subject string) error, error) {
	return judge(rules, true)
}

func judge(rules []Requirement, strict bool) (func(context.Context, string) error, error) {
	rules = slices.Clone(rules)
	var faults []error
	for _, r := range rules {
		faults = append(faults, r.fault())
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return func(ctx context.Context, subject string) error {
		ruled := false
		var needed []string
		for _, r := range rules {
			if endpoint.MatchSubject(r.pattern, subject) {
				ruled = true
				needed = append(needed, r.scopes...)
			}
		}
		who := httpbridge.IdentityFrom(ctx)
		switch {
		case !ruled && strict:
			return denied
		case ruled && who == nil:
			return none(challenge("Bearer", "realm", defaultRealm))
		case !who.Allows(needed...):
			return insufficient(needed)
		}
		return nil
	}, nil
}

func (r Requirement) fault() error {
	if err := endpoint.ValidatePattern(r.pattern); err != nil {
		return fmt.Errorf("auth: a rule's %w", err)
	}
	for _, s := range r.scopes {
		if !isScope(s) {
			return fmt.Errorf("auth: the rule of %q: %q is no scope (RFC 6749, 3.3)", r.pattern, s)
		}
	}
	return nil
}

func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
}

var denied = endpoint.PermissionDenied.New("nobody may call this").WithOutcome(endpoint.NotSent)

// insufficient names the scopes that would do (RFC 6750, 3).
func insufficient(scopes []string) error {
	slices.Sort(scopes)
	list := strings.Join(slices.Compact(scopes), " ")
	err := endpoint.PermissionDenied.Errorf("the scopes %q are needed", list).WithOutcome(endpoint.NotSent)
	return refuse(err, challenge("Bearer", "realm", defaultRealm, "error", "insufficient_scope", "scope", list))
}
