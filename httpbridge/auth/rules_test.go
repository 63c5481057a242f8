package auth_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

// scoped takes the scopes from a header: tests of rules need no keys.
func scoped(r *http.Request) (context.Context, error) {
	scopes := r.Header.Values("X-Scope")
	if scopes == nil {
		return r.Context(), nil
	}
	return httpbridge.Identify(r.Context(), &auth.Identity{Subject: "ann", Scopes: scopes}), nil
}

func TestRules(t *testing.T) {
	rules, err := auth.Rules(auth.Rule("svc.write", "write"), auth.Rule("svc.read", "read"), auth.Rule("svc.write", "read", "write"))
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(scoped), httpbridge.WithAuthorization(rules))
	s.in(t, s.post(t, "/svc/read", "X-Scope", "read"))
	s.in(t, s.post(t, "/svc/write", "X-Scope", "write", "X-Scope", "read"))
	s.in(t, s.post(t, "/svc/open", "X-Scope", ""))
	s.in(t, s.post(t, "/svc/open"))

	r := s.post(t, "/svc/write", "X-Scope", "write")
	assert.Equal(t, s.out(t, r, 403), `the scopes "read write" are needed`)
	assert.Equal(t, r.header.Values("WWW-Authenticate"), []string{`Bearer realm="postbus", error="insufficient_scope", scope="read write"`})
	s.out(t, s.post(t, "/svc/read", "X-Scope", "write"), 403)
	s.out(t, s.post(t, "/svc.read", "X-Scope", "readx"), 403)
	r = s.post(t, "/svc/read")
	s.out(t, r, 401)
	assert.Equal(t, r.header.Get("WWW-Authenticate"), `Bearer realm="postbus"`)
}

func TestStrictRules(t *testing.T) {
	rules, err := auth.StrictRules(auth.Rule("svc.read", "read"), auth.Rule("svc.open"))
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(scoped), httpbridge.WithAuthorization(rules))
	s.in(t, s.post(t, "/svc/read", "X-Scope", "read"))
	s.in(t, s.post(t, "/svc/open", "X-Scope", ""))
	s.out(t, s.post(t, "/svc/open"), 401)
	assert.Equal(t, s.out(t, s.post(t, "/svc/write", "X-Scope", "write"), 403), "nobody may call this")
}

func TestRules_faults(t *testing.T) {
	_, err := auth.Rules(auth.Rule("a..b", "x"), auth.Rule("svc.*", `x"y`), auth.Rule("svc.>", ""), auth.Rule("$SYS.>", "x"))
	assert.Contains(t, err.Error(), "a..b", `x\"y`, `svc.>`, "$SYS")
}

func TestAny(t *testing.T) {
	keys, err := auth.APIKeys(auth.Key{Subject: "ann", Hash: auth.HashKey("one")})
	assert.NoError(t, err)
	other := func(r *http.Request) (context.Context, error) {
		switch r.Header.Get("X-Other") {
		case "":
			return nil, auth.ErrNoCredentials
		case "good":
			return httpbridge.Identify(r.Context(), &auth.Identity{Subject: "bob"}), nil
		}
		return nil, errors.New("secret")
	}
	s := start(t, httpbridge.WithAuth(auth.Any(nil, keys, other)))
	assert.Equal(t, s.in(t, s.post(t, "/svc/read", "X-API-Key", "one")).Subject, "ann")
	assert.Equal(t, s.in(t, s.post(t, "/svc/read", "X-Other", "good")).Subject, "bob")
	assert.Equal(t, s.in(t, s.post(t, "/svc/read", "X-Other", "good", "X-API-Key", "one")).Subject, "ann")
	s.out(t, s.post(t, "/svc/read", "X-Other", "good", "X-API-Key", "two"), 401)
	assert.Equal(t, s.out(t, s.post(t, "/svc/read", "X-Other", "bad"), 401), "")
	r := s.post(t, "/svc/read")
	s.out(t, r, 401)
	assert.Equal(t, r.header.Values("WWW-Authenticate"), []string{`ApiKey realm="postbus"`})

	_, err = auth.Any()(&http.Request{})
	assert.ErrorIs(t, err, endpoint.Unauthenticated)
	_, err = auth.Any(auth.Any(other), keys)(&http.Request{})
	assert.ErrorIs(t, err, auth.ErrNoCredentials)
}
