package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

// with changes a key, names and values in turn.
func with(k map[string]any, kv ...any) map[string]any {
	for i := 0; i < len(kv); i += 2 {
		k[kv[i].(string)] = kv[i+1]
	}
	return k
}

// TestJWKS_unusable has keys that must not verify anything.
func TestJWKS_unusable(t *testing.T) {
	i := newIssuer()
	r, e := func() map[string]any { return rsaJWK("r", &i.rsa.PublicKey) }, func() map[string]any { return ecJWK("e", &i.ec.PublicKey) }
	short := new(big.Int).Lsh(big.NewInt(1), 1023)
	for name, c := range map[string]struct {
		set  []byte
		want string
	}{
		"nothing":                {nil, "no JWK set"},
		"no JSON":                {[]byte("<html>"), "no JWK set"},
		"no keys":                {[]byte("{}"), "no key in it"},
		"null":                   {[]byte("null"), "no key in it"},
		"a list":                 {[]byte("[]"), "no JWK set"},
		"a secret":               {jwks(map[string]any{"kty": "oct", "kid": "x", "k": "c2VjcmV0", "alg": "HS256"}), "no key in it"},
		"of the future":          {jwks(map[string]any{"kty": "AKP", "kid": "x"}), "no key in it"},
		"for encryption":         {jwks(with(r(), "use", "enc")), "no key in it"},
		"to sign, not to verify": {jwks(with(r(), "key_ops", []string{"sign"})), "no key in it"},
		"RSA for HS256":          {jwks(with(r(), "alg", "HS256")), "not for"},
		"RSA for ES256":          {jwks(with(r(), "alg", "ES256")), "not for"},
		"EC for another curve":   {jwks(with(e(), "alg", "ES384")), "not for"},
		"RSA of 1024 bits":       {jwks(with(r(), "n", b64(short.Bytes()))), "1024 bits"},
		"RSA of 16384 bits":      {jwks(with(r(), "n", b64(short.Lsh(short, 15360).Bytes()))), "n is not"},
		"an exponent of 1":       {jwks(with(r(), "e", "AQ")), "exponent"},
		"an even exponent":       {jwks(with(r(), "e", "BA")), "exponent"},
		"a long exponent":        {jwks(with(r(), "e", b64([]byte{1, 0, 0, 0, 1}))), "exponent"},
		"no n":                   {jwks(with(r(), "n", "")), "n is not"},
		"no base64url":           {jwks(with(r(), "n", "+/==")), "n is not"},
		"off the curve":          {jwks(with(e(), "x", b64(make([]byte, 32)))), "no key in it"},
		"a short coordinate":     {jwks(with(e(), "x", "AAAA")), "32 bytes"},
		"another curve":          {jwks(with(e(), "crv", "secp256k1")), "no key in it"},
		"a short Ed25519":        {jwks(with(edJWK("d", i.ed), "x", "AAAA")), "32 bytes"},
		"X25519":                 {jwks(with(edJWK("d", i.ed), "crv", "X25519")), "no key in it"},
		"too many":               {[]byte(`{"keys":[` + strings.Repeat("{},", 100) + `{}]}`), "101 keys"},
		"too much":               {[]byte(strings.Repeat(" ", 1<<20) + "{}"), "at most"},
		"too deep":               {[]byte(`{"keys":` + strings.Repeat("[", 100_000)), "no JWK set"},
	} {
		_, err := auth.JWT(policy(jwksFile(t, c.set)))
		if err == nil {
			t.Errorf("%s was taken", name)
			continue
		}
		assert.Contains(t, err.Error(), c.want)
	}
}

// TestJWKS_mixed leaves out what is bad and uses the rest; a key that has no name is for tokens that name none, if it is alone.
func TestJWKS_mixed(t *testing.T) {
	i := newIssuer()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	assert.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	assert.NoError(t, err)
	p := policy(jwksFile(t, jwks(rsaJWK("w", &weak.PublicKey), map[string]any{"kty": "oct", "k": "eA"}, with(ecJWK("e", &i.ec.PublicKey), "alg", "ES256"), ecJWK("p", &p521.PublicKey))))
	p.Algorithms = append(p.Algorithms, "ES512")
	tokens, err := auth.JWT(p)
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(tokens))
	s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+mint(t, jwt.SigningMethodES256, i.ec, "e", claims())))
	s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+mint(t, jwt.SigningMethodES512, p521, "p", claims())))
	s.out(t, s.post(t, "/svc/read", "Authorization", "Bearer "+mint(t, jwt.SigningMethodRS256, weak, "w", claims())), 401)

	alone := ecJWK("", &i.ec.PublicKey)
	delete(alone, "kid")
	tokens, err = auth.JWT(policy(jwksFile(t, jwks(alone))))
	assert.NoError(t, err)
	s = start(t, httpbridge.WithAuth(tokens))
	s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+mint(t, jwt.SigningMethodES256, i.ec, "", claims())))
}
