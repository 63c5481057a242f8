package auth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

// issuer signs tokens and publishes keys.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

// newIssuer makes the keys once: RSA's take their time.
var newIssuer = sync.OnceValue(func() *issuer {
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, d, _ := ed25519.GenerateKey(rand.Reader)
	return &issuer{r, e, d}
})

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(id string, k *rsa.PublicKey) map[string]any {
	return map[string]any{"kty": "RSA", "kid": id, "use": "sig", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
}

func ecJWK(id string, k *ecdsa.PublicKey) map[string]any {
	size := (k.Curve.Params().BitSize + 7) / 8
	point, _ := k.Bytes()
	return map[string]any{"kty": "EC", "kid": id, "crv": k.Curve.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])}
}

func edJWK(id string, k ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "kid": id, "crv": "Ed25519", "x": b64(k.Public().(ed25519.PublicKey)), "alg": "EdDSA"}
}

func jwks(keys ...map[string]any) []byte {
	data, _ := json.Marshal(map[string]any{"keys": keys})
	return data
}

func (i *issuer) jwks() []byte {
	return jwks(rsaJWK("r", &i.rsa.PublicKey), ecJWK("e", &i.ec.PublicKey), edJWK("d", i.ed))
}

func jwksFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	assert.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// claims are good ones, changed by names and values in turn; a nil value takes one away.
func claims(kv ...any) jwt.MapClaims {
	now := time.Now().Unix()
	c := jwt.MapClaims{
		"iss": "https://id.example", "aud": "https://api.example", "sub": "ann", "exp": now + 300, "iat": now, "nbf": now,
		"scope": "read write", "tenant": "acme", "email": "ann@example.com",
	}
	for i := 0; i < len(kv); i += 2 {
		if c[kv[i].(string)] = kv[i+1]; kv[i+1] == nil {
			delete(c, kv[i].(string))
		}
	}
	return c
}

// mint signs a token; kv are further headers, names and values in turn.
func mint(t testing.TB, method jwt.SigningMethod, key any, id string, c jwt.MapClaims, kv ...any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	if id != "" {
		token.Header["kid"] = id
	}
	for i := 0; i < len(kv); i += 2 {
		token.Header[kv[i].(string)] = kv[i+1]
	}
	s, err := token.SignedString(key)
	assert.NoError(t, err)
	return s
}

func policy(jwks string) auth.JWTPolicy {
	return auth.JWTPolicy{
		Issuer: "https://id.example", Audience: []string{"https://api.example", "api"},
		Algorithms: []string{"RS256", "PS256", "ES256", "EdDSA"}, JWKS: jwks, Claims: []string{"tenant", "absent"},
	}
}

func TestJWT(t *testing.T) {
	i := newIssuer()
	tokens, err := auth.JWT(policy(jwksFile(t, i.jwks())))
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(tokens))
	for name, token := range map[string]string{
		"RS256":         mint(t, jwt.SigningMethodRS256, i.rsa, "r", claims()),
		"PS256":         mint(t, jwt.SigningMethodPS256, i.rsa, "r", claims()),
		"ES256":         mint(t, jwt.SigningMethodES256, i.ec, "e", claims()),
		"EdDSA":         mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims()),
		"several aud":   mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("aud", []string{"other", "api"})),
		"no nbf or iat": mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("nbf", nil, "iat", nil)),
		"scp":           mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("scope", nil, "scp", []string{"read", "write"})),
		"clocks apart":  mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("nbf", time.Now().Unix()+20, "iat", time.Now().Unix()+20)),
	} {
		who := s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+token))
		assert.Equal(t, who.Expires.After(time.Now()), true, name)
		who.Expires = time.Time{}
		assert.Equal(t, *who, auth.Identity{
			Subject: "ann", Issuer: "https://id.example", Scopes: []string{"read", "write"}, Claims: map[string]any{"tenant": "acme"},
		}, name)
	}
	justNow := mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("exp", time.Now().Unix()-10))
	s.in(t, s.post(t, "/svc/read", "Authorization", "bearer "+justNow))
}

// TestJWT_numbers rounds none: an id of 17 digits is no other.
func TestJWT_numbers(t *testing.T) {
	i := newIssuer()
	p := policy(jwksFile(t, i.jwks()))
	p.Claims = []string{"org", "orgs"}
	tokens, err := auth.JWT(p)
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(tokens))
	exp := time.Now().Unix() + 300
	token := mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims("org", int64(9007199254740993), "orgs", []int64{9007199254740995}, "exp", exp))
	who := s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+token))
	assert.Equal(t, who.Claims, map[string]any{"org": json.Number("9007199254740993"), "orgs": []any{json.Number("9007199254740995")}})
	assert.Equal(t, who.Expires.Unix(), exp)
}

// TestJWT_hostile has what those try who have no token, or one for something else (RFC 8725, 2).
func TestJWT_hostile(t *testing.T) {
	i := newIssuer()
	tokens, err := auth.JWT(policy(jwksFile(t, append(i.jwks(), '\n'))))
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(tokens))
	der, err := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
	assert.NoError(t, err)
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	good := mint(t, jwt.SigningMethodRS256, i.rsa, "r", claims())
	parts := strings.Split(good, ".")
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	assert.NoError(t, err)
	none := func(alg string) string {
		return b64([]byte(`{"alg":"`+alg+`","kid":"r"}`)) + "." + parts[1] + "."
	}
	root := b64([]byte(strings.ReplaceAll(string(decode(t, parts[1])), `"ann"`, `"root"`)))
	now := time.Now().Unix()
	ed := func(kv ...any) string { return mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims(kv...)) }
	signed := func(payload string) string {
		text := b64([]byte(`{"alg":"EdDSA","kid":"d"}`)) + "." + b64([]byte(payload))
		return text + "." + b64(ed25519.Sign(i.ed, []byte(text)))
	}
	const badSignature = "the token's signature or algorithm is not valid"
	for name, c := range map[string]struct{ token, want string }{
		"alg none":                    {none("none"), badSignature},
		"alg None":                    {none("None"), "malformed"},
		"alg NONE":                    {none("NONE"), "malformed"},
		"no alg":                      {b64([]byte(`{"kid":"r"}`)) + "." + parts[1] + ".", "malformed"},
		"none, signed as before":      {b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2], badSignature},
		"HS256 with the public key":   {mint(t, jwt.SigningMethodHS256, pemKey, "r", claims()), badSignature},
		"HS256 with its bytes":        {mint(t, jwt.SigningMethodHS256, der, "r", claims()), badSignature},
		"HS256 with nothing":          {mint(t, jwt.SigningMethodHS256, []byte{}, "r", claims()), badSignature},
		"an algorithm not pinned":     {mint(t, jwt.SigningMethodRS512, i.rsa, "r", claims()), badSignature},
		"a key of another type":       {mint(t, jwt.SigningMethodRS256, i.rsa, "e", claims()), "no key"},
		"another's key":               {mint(t, jwt.SigningMethodRS256, other, "r", claims()), badSignature},
		"an unknown key":              {mint(t, jwt.SigningMethodRS256, other, "x", claims()), "no key"},
		"no key named":                {mint(t, jwt.SigningMethodRS256, i.rsa, "", claims()), "no key"},
		"a kid that is a path":        {mint(t, jwt.SigningMethodRS256, other, "../../../dev/null", claims()), "no key"},
		"a kid that is no string":     {mint(t, jwt.SigningMethodRS256, i.rsa, "", claims(), "kid", 7), "no key"},
		"its own key in the header":   {mint(t, jwt.SigningMethodRS256, other, "", claims(), "jwk", rsaJWK("", &other.PublicKey)), "no key"},
		"a URL of keys in the header": {mint(t, jwt.SigningMethodRS256, other, "", claims(), "jku", "https://evil.example/"), "no key"},
		"a critical header":           {mint(t, jwt.SigningMethodRS256, i.rsa, "r", claims(), "crit", []string{"b64"}, "b64", false), "critical"},
		"another payload":             {parts[0] + "." + root + "." + parts[2], badSignature},
		"no signature":                {parts[0] + "." + parts[1] + ".", badSignature},
		"half a signature":            {good[:len(good)-6], badSignature},
		"two parts":                   {parts[0] + "." + parts[1], "malformed"},
		"five parts, as JWE has":      {good + "..", "malformed"},
		"no JSON":                     {"e30.bm9uZQ." + parts[2], "malformed"},
		"no base64":                   {"!." + parts[1] + "." + parts[2], "malformed"},
		"padded":                      {parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		"deep JSON":                   {parts[0] + "." + b64([]byte(strings.Repeat("[", 3000))) + "." + parts[2], "malformed"},
		"expired":                     {ed("exp", now-60), "expired"},
		"expired long ago":            {ed("exp", 1), "expired"},
		"no exp":                      {ed("exp", nil), "lacks"},
		"exp as a string":             {ed("exp", "9999999999"), "malformed"},
		"exp beyond all numbers":      {ed("exp", json.Number("1e400")), "expired"},
		"exp of zero":                 {ed("exp", 0), "expired"},
		"claims that are a list":      {signed(`[]`), "malformed"},
		"claims that are null":        {signed(`null`), "lacks"},
		"something after the claims":  {signed(string(decode(t, parts[1])) + `{}`), "malformed"},
		"not valid yet":               {ed("nbf", now+60), "not valid yet"},
		"issued in the future":        {ed("iat", now+60), "in the future"},
		"another audience":            {ed("aud", "https://other.example"), "audience"},
		"no audience":                 {ed("aud", nil), "lacks"},
		"an empty audience":           {ed("aud", ""), "lacks"},
		"an audience that begins so":  {ed("aud", "https://api.example.evil.example"), "audience"},
		"another issuer":              {ed("iss", "https://id.example/"), "issuer"},
		"no issuer":                   {ed("iss", nil), "lacks"},
		"nobody":                      {ed("sub", nil), "no subject"},
		"nobody, either":              {ed("sub", ""), "no subject"},
		"a subject that is a list":    {ed("sub", []string{"ann"}), "no subject"},
	} {
		r := s.post(t, "/svc/read", "Authorization", "Bearer "+c.token)
		assert.Contains(t, s.out(t, r, 401, name), c.want)
		assert.Contains(t, r.header.Get("WWW-Authenticate"), `Bearer realm="postbus", error="invalid_token", error_description="`)
	}
	for name, kv := range map[string][]string{
		"nothing": {}, "no token": {"Authorization", "Bearer"}, "basic": {"Authorization", "Basic YTpi"}, "no scheme": {"Authorization", good},
		"a cookie": {"Cookie", "access_token=" + good}, "another header": {"X-Authorization", "Bearer " + good}, "a proxy's": {"Proxy-Authorization", "Bearer " + good},
	} {
		r := s.post(t, "/svc/read?access_token="+good, kv...)
		s.out(t, r, 401, name)
		assert.Equal(t, r.header.Values("WWW-Authenticate"), []string{`Bearer realm="postbus"`})
	}
	s.out(t, s.post(t, "/svc/read", "Authorization", "Bearer "+good, "Authorization", "Bearer "+good), 400)
	s.in(t, s.post(t, "/svc/read", "Authorization", "Bearer "+good)) // the way of asking is right
}

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	assert.NoError(t, err)
	return b
}

func TestJWT_faults(t *testing.T) {
	_, err := auth.JWT(auth.JWTPolicy{Leeway: time.Hour, Refresh: -1})
	assert.Contains(t, err.Error(), "issuer", "audience", "algorithms are needed", "leeway", "refresh", "JWKS is needed")
	p := policy("x")
	p.Algorithms = []string{"none", "HS256", "es256"}
	_, err = auth.JWT(p)
	assert.Contains(t, err.Error(), `"none"`, "HS256 is signed with what verifies it", `"es256"`)
	for _, bad := range []string{"http://id.example/jwks", "ftp://id.example/x", "file:///etc/passwd", "http://127.0.0.1.evil.example/", "https://a b/", filepath.Join(t.TempDir(), "none")} {
		_, err = auth.JWT(policy(bad))
		assert.Contains(t, err.Error(), "JWKS")
	}
}
