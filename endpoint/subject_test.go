package endpoint_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestValidateSubject(t *testing.T) {
	for _, good := range []string{"a", "svc.add", "a.b-c.d_e", "users.größe", "a$b", "a.$b", strings.Repeat("a", 512), "_INBOXES.a", "a._INBOX"} {
		assert.NoError(t, endpoint.ValidateSubject(good), good)
		assert.NoError(t, endpoint.ValidatePattern(good), good)
	}
	for _, bad := range []string{
		"", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\n", "a\x00b", "a\x7f", "a\u00a0b", "a\u0085", "\xff", "*", ">", "a.*", "a.>", "a*b", "a.b>", "$SRV.PING", "$JS",
		"_INBOX.x", "_RPC.a", "_R_.x", "_GR_.x", "a.~f", "~a", strings.Repeat("a", 513),
	} {
		assert.True(t, endpoint.ValidateSubject(bad) != nil, bad)
	}
	for _, good := range []string{"*", ">", "a.*", "a.>", "*.*.b", "*.>"} {
		assert.NoError(t, endpoint.ValidatePattern(good), good)
	}
	for _, bad := range []string{">.a", "a.>.b", "a*", "a.b>", "a.>b", "", "a..>", "a. "} {
		assert.True(t, endpoint.ValidatePattern(bad) != nil, bad)
	}
}

func FuzzSubject(f *testing.F) {
	f.Add("svc.*", "svc.add")
	f.Add("a.>", "a")
	f.Add("*.b.>", "a.b.c.d")
	f.Add("a\u2028b", "$a")
	f.Fuzz(func(t *testing.T, pattern, subject string) {
		if endpoint.ValidateSubject(subject) != nil {
			return
		}
		tokens := strings.Split(subject, ".")
		if len(subject) > 512 || strings.ContainsAny(subject, "*>") || slices.Contains(tokens, "") || subject[0] == '$' ||
			strings.ContainsFunc(subject, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			t.Fatalf("%q was accepted", subject)
		}
		if endpoint.ValidatePattern(subject) != nil {
			t.Fatalf("%q is a subject and no pattern", subject)
		}
		if !endpoint.MatchSubject(subject, subject) || !endpoint.MatchSubject(">", subject) {
			t.Fatalf("%q does not match itself or >", subject)
		}
		if endpoint.ValidateServiceName(endpoint.ServiceName(subject)) != nil || endpoint.ValidateServiceName(endpoint.EndpointName(subject)) != nil {
			t.Fatalf("%q makes a bad name", subject)
		}
		if endpoint.ValidatePattern(pattern) != nil {
			return
		}
		if got, want := endpoint.MatchSubject(pattern, subject), naiveMatch(strings.Split(pattern, "."), tokens); got != want {
			t.Fatalf("MatchSubject(%q, %q) = %v", pattern, subject, got)
		}
	})
}

func naiveMatch(pattern, subject []string) bool {
	switch {
	case len(pattern) == 0 || len(subject) == 0:
		return len(pattern) == len(subject)
	case pattern[0] == ">":
		return true
	}
	return (pattern[0] == "*" || pattern[0] == subject[0]) && naiveMatch(pattern[1:], subject[1:])
}

func TestMatchSubject(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{">", "a", true},
		{"*", "a.b", false},
		{"*.b", "a.b", true},
		{"a", "a.b", false},
	} {
		assert.Equal(t, endpoint.MatchSubject(c.pattern, c.subject), c.want, c.pattern, c.subject)
	}
}

func TestIdentity(t *testing.T) {
	for _, c := range []struct{ name, subject, service, endpoint string }{
		{"", "svc.add", "svc", "add"},
		{"", "acme.users.get", "acme-users", "get"},
		{"", "ping", "ping", "ping"},
		{"", "a.größe", "a", "gr__e"},
		{"calculator", "svc.add", "calculator", "svc-add"},
		{"calculator", "add", "calculator", "add"},
	} {
		s, e := endpoint.Identity(c.name, c.subject)
		assert.Equal(t, [2]string{s, e}, [2]string{c.service, c.endpoint}, c.subject)
	}
	for _, bad := range []string{"", "a.b", "a b", "ä"} {
		assert.True(t, endpoint.ValidateServiceName(bad) != nil, bad)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"1.4.0": "1.4.0", "v1.4.0": "1.4.0", "0.0.0": "0.0.0", "1.0.0-rc.1": "1.0.0-rc.1", "1.0.0+build.007": "1.0.0+build.007",
		"1.0.0-a-b.1+c-d": "1.0.0-a-b.1+c-d", "1.0.0-0a": "1.0.0-0a", "99999999999999999999.0.0": "99999999999999999999.0.0",
	} {
		got, err := endpoint.ParseVersion(in)
		assert.NoError(t, err, in)
		assert.Equal(t, got, want)
	}
	for _, bad := range []string{
		"", "v", "1", "1.2", "1.2.3.4", "01.2.3", "1.02.3", "1.2.03", "1.2.3-", "1.2.3+", "1.2.3-01", "1.2.3-a..b", "1.2.3-ä", "1.2.3+a_b", "-1.2.3", "vv1.2.3", "1.2.x", " 1.2.3",
	} {
		_, err := endpoint.ParseVersion(bad)
		assert.True(t, err != nil, bad)
	}
}
