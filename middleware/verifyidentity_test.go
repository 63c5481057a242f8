package middleware_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	callerid "postbus.example/internal/identity"
	"postbus.example/middleware"
)

// bridgeKey makes a key that is the same in each run.
func bridgeKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func publicKey(seed byte) ed25519.PublicKey { return bridgeKey(seed).Public().(ed25519.PublicKey) }

// vouch is what a bridge sends along.
func vouch(t testing.TB, seed byte, subject string, at time.Time, scopes ...string) string {
	t.Helper()
	s, err := callerid.NewSigner("edge", bridgeKey(seed))
	assert.NoError(t, err)
	v, err := s.Sign(&middleware.Identity{Subject: "ann", Scopes: scopes}, subject, at)
	assert.NoError(t, err)
	return v
}

// known serves svc.who, which tells who calls and counts.
func known(t testing.TB, p middleware.IdentityPolicy) (call func(...string) (string, error), ran *int) {
	t.Helper()
	m := endpoint.NewMux()
	ran = new(int)
	serve(t, m, "svc.who", endpoint.New(func(ctx context.Context, _ *addRequest) (*greeting, error) {
		*ran++
		who := middleware.IdentityFrom(ctx)
		if who == nil {
			return &greeting{Text: "nobody"}, nil
		}
		return &greeting{Text: who.Subject + " by " + who.Bridge}, nil
	}, middleware.VerifyIdentity(p)))
	c := endpoint.Caller[*addRequest, *greeting](m, "svc.who")
	return func(kv ...string) (string, error) {
		g, err := c(endpoint.WithHeader(t.Context(), kv...), &addRequest{})
		if err != nil {
			return "", err
		}
		return g.Text, nil
	}, ran
}

func TestVerifyIdentity(t *testing.T) {
	call, ran := known(t, middleware.IdentityPolicy{Keys: []ed25519.PublicKey{publicKey(1), publicKey(2)}, Scopes: []string{"who:read"}})
	now := time.Now()
	good := vouch(t, 1, "svc.who", now, "who:read", "x")
	for _, kv := range [][]string{{"Postbus-Identity", good}, {"postbus-identity", good}, {"Postbus-Identity", vouch(t, 2, "svc.who", now, "who:read")}} {
		text, err := call(kv...)
		assert.NoError(t, err)
		assert.Equal(t, text, "ann by edge")
	}
	_, err := call("Postbus-Identity", vouch(t, 1, "svc.who", now, "x"))
	assert.ErrorIs(t, err, endpoint.PermissionDenied)
	for name, kv := range map[string][]string{
		"none":        {},
		"empty":       {"Postbus-Identity", ""},
		"another key": {"Postbus-Identity", vouch(t, 3, "svc.who", now, "who:read")},
		"of another":  {"Postbus-Identity", vouch(t, 1, "svc.add", now, "who:read")},
		"old":         {"Postbus-Identity", vouch(t, 1, "svc.who", now.Add(-40*time.Second), "who:read")},
		"early":       {"Postbus-Identity", vouch(t, 1, "svc.who", now.Add(20*time.Second), "who:read")},
		"two":         {"Postbus-Identity", good, "postbus-identity", good},
		"plain":       {"Postbus-Identity", "ann"},
		"changed":     {"Postbus-Identity", good[:len(good)-3] + "AAA"},
	} {
		_, err := call(kv...)
		assert.ErrorIs(t, err, endpoint.Unauthenticated, name)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted, name)
		assert.Equal(t, err.Error(), "unauthenticated", name)
	}
	assert.Equal(t, *ran, 3)
}

func TestVerifyIdentity_optional(t *testing.T) {
	call, _ := known(t, middleware.IdentityPolicy{Keys: []ed25519.PublicKey{publicKey(1)}, Optional: true})
	text, err := call()
	assert.NoError(t, err)
	assert.Equal(t, text, "nobody")
	text, err = call("Postbus-Identity", vouch(t, 1, "svc.who", time.Now()))
	assert.NoError(t, err)
	assert.Equal(t, text, "ann by edge")
	_, err = call("Postbus-Identity", vouch(t, 2, "svc.who", time.Now()))
	assert.ErrorIs(t, err, endpoint.Unauthenticated, "what is there must be good")
	call, _ = known(t, middleware.IdentityPolicy{Keys: []ed25519.PublicKey{publicKey(1)}, Optional: true, Scopes: []string{"x"}})
	_, err = call()
	assert.ErrorIs(t, err, endpoint.PermissionDenied)
}

func TestVerifyIdentity_faults(t *testing.T) {
	for _, p := range []middleware.IdentityPolicy{{}, {Keys: []ed25519.PublicKey{nil}}, {Keys: []ed25519.PublicKey{publicKey(1)}, Leeway: -1}} {
		call, ran := known(t, p)
		_, err := call("Postbus-Identity", vouch(t, 1, "svc.who", time.Now()))
		assert.ErrorIs(t, err, endpoint.Internal)
		assert.Equal(t, *ran, 0)
	}
}

// TestVerifyIdentity_stack knows who calls before anybody else asks.
func TestVerifyIdentity_stack(t *testing.T) {
	m := endpoint.NewMux()
	m.Use(middleware.Server(middleware.Defaults{
		Identity: &middleware.IdentityPolicy{Keys: []ed25519.PublicKey{publicKey(1)}},
		Authenticate: func(ctx context.Context, _ *endpoint.Call) (context.Context, error) {
			if middleware.IdentityFrom(ctx).Subject != "ann" {
				return nil, endpoint.PermissionDenied
			}
			return ctx, nil
		},
	}))
	serve(t, m, "svc.add", endpoint.New(add))
	call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
	_, err := call(endpoint.WithHeader(t.Context(), "Postbus-Identity", vouch(t, 1, "svc.add", time.Now())), &addRequest{})
	assert.NoError(t, err)
	_, err = call(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Unauthenticated)
}

func BenchmarkVerifyIdentity(b *testing.B) {
	h := middleware.VerifyIdentity(middleware.IdentityPolicy{Keys: []ed25519.PublicKey{publicKey(1)}})(ok)
	now := time.Now()
	value := vouch(b, 1, "svc.add", now)
	next := supply(endpoint.ServerSide, b.N+1)
	b.ResetTimer()
	b.ReportAllocs()
	for range b.N {
		c := next()
		c.SetReceived(now)
		c.Header.Add("Postbus-Identity", value)
		_, err := h(b.Context(), c)
		assert.NoError(b, err)
	}
}
