package auth_test

import (
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

// BenchmarkAuthenticate is what it costs to find out who sent a request.
func BenchmarkAuthenticate(b *testing.B) {
	i := newIssuer()
	tokens, err := auth.JWT(policy(jwksFile(b, i.jwks())))
	assert.NoError(b, err)
	key, hash := auth.NewKey()
	keys, err := auth.APIKeys(auth.Key{Subject: "ann", Hash: hash})
	assert.NoError(b, err)
	for _, c := range []struct {
		name          string
		by            auth.Authenticator
		authorization string
	}{
		{"APIKey", keys, "ApiKey " + key},
		{"RS256", tokens, "Bearer " + mint(b, jwt.SigningMethodRS256, i.rsa, "r", claims())},
		{"ES256", tokens, "Bearer " + mint(b, jwt.SigningMethodES256, i.ec, "e", claims())},
		{"EdDSA", tokens, "Bearer " + mint(b, jwt.SigningMethodEdDSA, i.ed, "d", claims())},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
			r.Header.Set("Authorization", c.authorization)
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.by(r)
				assert.NoError(b, err)
			}
		})
	}
}

// BenchmarkBridge is a whole call through a bridge in front of an in-memory endpoint, open and guarded.
func BenchmarkBridge(b *testing.B) {
	key, hash := auth.NewKey()
	keys, err := auth.APIKeys(auth.Key{Subject: "ann", Hash: hash, Scopes: []string{"memory:read"}})
	assert.NoError(b, err)
	rules, err := auth.Rules(auth.Rule("memory.*", "memory:read"))
	assert.NoError(b, err)
	for name, opts := range map[string][]httpbridge.Option{
		"open":    nil,
		"guarded": {httpbridge.WithAuth(keys), httpbridge.WithAuthorization(rules), httpbridge.WithIdentity("edge", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))},
	} {
		b.Run(name, func(b *testing.B) {
			bridge := httpbridge.New(memory(), append(opts, httpbridge.Expose("memory.load"))...)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/memory/load", http.NoBody)
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("X-Api-Key", key)
				w := httptest.NewRecorder()
				if bridge.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
