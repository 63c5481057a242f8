package cli_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// newKey makes an API key with the command, and a file that has it.
func newKey(t *testing.T, words ...string) (key, file string) {
	t.Helper()
	r := run(t, append([]string{"key", "--json"}, words...))
	assert.Equal(t, []any{r.code, r.err}, []any{0, ""})
	var made struct{ Key, Line string }
	assert.NoError(t, json.Unmarshal([]byte(r.out), &made))
	file = filepath.Join(t.TempDir(), "keys")
	assert.NoError(t, os.WriteFile(file, []byte(made.Line+"\n"), 0o600))
	return made.Key, file
}

// TestKey_scopes writes no line that the bridge would refuse.
func TestKey_scopes(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{"größe", `"read"`, "#read", "a b", ""} {
		r := run(t, []string{"key", "ann", scope})
		assert.Equal(t, []any{r.code, r.out}, []any{64, ""}, scope)
	}
}

func TestBridge_APIKeys(t *testing.T) {
	t.Parallel()
	s := broker(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	assert.NoError(t, err)
	who := make(chan *middleware.Identity, 1)
	b := serve(t, s, nil)
	b.Use(middleware.VerifyIdentity(middleware.IdentityPolicy{Keys: []ed25519.PublicKey{public}}))
	assert.NoError(t, b.Serve("math.add", endpoint.New(func(ctx context.Context, p *pair) (*sum, error) {
		who <- middleware.IdentityFrom(ctx)
		return add(ctx, p)
	})))
	key, file := newKey(t, "ann", "math:read")
	front := startBridge(t, s, "--expose", "math.*", "--api-keys", file, "--scope", "math.add=math:read", "--scope", "math.put=math:write",
		"--identity-key", keyFile(t, private), "--instance-name", "edge")
	status, _ := front.do(t, http.MethodPost, "/math/add", "{}")
	assert.Equal(t, status, http.StatusUnauthorized)
	status, text := front.do(t, http.MethodPost, "/math/add", `{"a":2}`, "X-API-Key", key)
	assert.Equal(t, []any{status, text}, []any{200, `{"sum":2}`})
	assert.Equal(t, (<-who).Subject, "ann")
	status, text = front.do(t, http.MethodPost, "/math/put", "{}", "X-API-Key", key)
	assert.Equal(t, status, http.StatusForbidden, text)
	assert.True(t, !strings.Contains(front.log.String(), key), "no secret is logged")
	assert.Equal(t, front.stop(t), 0)
}

// TestBridge_APIKeys_log tells where the operator looks that the file of keys can't be read again.
func TestBridge_APIKeys_log(t *testing.T) {
	t.Parallel()
	s := broker(t)
	key, file := newKey(t, "ann")
	front := startBridge(t, s, "--expose", "math.*", "--api-keys", file)
	assert.NoError(t, os.WriteFile(file, []byte("nonsense\n"), 0o600))
	every := time.Tick(250 * time.Millisecond)
	assert.Eventually(t, func() bool { // requests look at it every five seconds
		<-every
		front.do(t, http.MethodPost, "/math/add", "{}", "X-API-Key", key)
		return len(front.logged("the file of API keys can't be read again; what was read before counts")) > 0
	})
	assert.Equal(t, front.stop(t), 0)
}

func keyFile(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	assert.NoError(t, err)
	file := filepath.Join(t.TempDir(), "identity.pem")
	assert.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return file
}

// TestBridge_JWT signs tokens by hand, as an issuer would.
func TestBridge_JWT(t *testing.T) {
	t.Parallel()
	s := broker(t)
	serve(t, s, math(), bus.WithVersion("1.0.0"))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	assert.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	jwks := filepath.Join(t.TempDir(), "jwks.json")
	assert.NoError(t, os.WriteFile(jwks, []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","use":"sig","alg":"EdDSA","x":"`+b64(public)+`"}]}`), 0o600))
	token := func(audience string) string {
		claims, err := json.Marshal(map[string]any{"iss": "https://id.example", "aud": audience, "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()})
		assert.NoError(t, err)
		signed := b64([]byte(`{"alg":"EdDSA","kid":"1"}`)) + "." + b64(claims)
		return "Bearer " + signed + "." + b64(ed25519.Sign(private, []byte(signed)))
	}
	front := startBridge(t, s, "--expose", "math.*", "--jwt-issuer", "https://id.example", "--jwt-audience", "api", "--jwt-algorithms", "EdDSA", "--jwt-keys", jwks)
	status, text := front.do(t, http.MethodPost, "/math/add", `{"a":2}`, "Authorization", token("api"))
	assert.Equal(t, []any{status, text}, []any{200, `{"sum":2}`})
	status, _ = front.do(t, http.MethodPost, "/math/add", `{"a":2}`, "Authorization", token("another"))
	assert.Equal(t, status, http.StatusUnauthorized)
	assert.Equal(t, front.stop(t), 0)
}

func TestBridge_authFaults(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	assert.NoError(t, os.WriteFile(keys, []byte("ann nonsense\nbob\n"), 0o600))
	r := run(t, []string{
		"bridge", "--expose", "a.b", "--api-keys", keys, "--jwt-issuer", "https://id.example", "--jwt-algorithms", "HS256", "--scope", "a..b=x",
		"--identity-key", keys,
	})
	assert.Equal(t, r.code, 64)
	for _, want := range []string{
		"--api-keys: ", "--jwt-…: an audience is needed", "--jwt-…: HS256 is signed with what verifies it", "--jwt-…: a JWKS is needed",
		"--scope: a rule's subject \"a..b\"", "--identity-key: has no PEM block",
	} {
		assert.Contains(t, r.err, "postbus: "+want)
	}
	r = run(t, []string{"bridge", "--expose", "a.b", "--scope", "a.b=x", "--identity-key", "/no/such"})
	assert.Contains(t, r.err, "--scope: needs to know who calls", "--identity-key: needs to know who calls", "--identity-key: open /no/such")
}
