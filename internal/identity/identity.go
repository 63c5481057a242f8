// Package identity is who sent a request into the bus, in a form that nobody on the bus can forge: signed by the bridge that
// found it out, verified by the service.
//
//	Postbus-Identity: header.payload.signature
//
// The value is a JSON Web Signature in its compact form (RFC 7515) over the claims of a JWT (RFC 7519), with EdDSA over
// Ed25519 (RFC 8037) and nothing else: a service in another language verifies it with any JOSE library.
//
//	header   alg "EdDSA", typ "postbus-identity+jwt", kid: the start of the SHA-256 of the public key
//	payload  iss: the bridge; aud: the subject of the call; sub, idp: who, says who; iat, exp; scope; claims
//
// A signature is bound to one subject and lives for [Life]. It is not bound to the body, nor to one use: see [Signer].
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Header is the name under which an identity travels.
const Header = "Postbus-Identity"

// Life is how long a signature is good for; [Reuse] is how long one is given out again for the same caller and subject.
const (
	Life  = 30 * time.Second
	Reuse = 10 * time.Second
)

// MaxSize bounds a signed identity in bytes: half of what all headers of a message may weigh.
const MaxSize = 4 << 10

// Identity is who sent a request. It is shared by all who handle it: nobody changes it once it is made.
type Identity struct {
	Subject string         // who: the sub of a token, the name of a key
	Issuer  string         // who says so: the iss of a token, "" for a key of the bridge's own
	Bridge  string         // the bridge that vouches for it; set by verification only
	Scopes  []string       // what it may do
	Claims  map[string]any // further claims, as JSON has them; numbers that were read are json.Number
	Expires time.Time      // when the credentials end; zero: they don't
}

// Allows reports whether an identity has all of the scopes; nobody, nil, has none.
func (i *Identity) Allows(scopes ...string) bool {
	for _, s := range scopes {
		if i == nil || !slices.Contains(i.Scopes, s) {
			return false
		}
	}
	return true
}

type contextKey struct{}

// NewContext returns a context that knows who.
func NewContext(ctx context.Context, i *Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, i)
}

// FromContext returns who a context knows, nil if nobody.
func FromContext(ctx context.Context) *Identity {
	i, _ := ctx.Value(contextKey{}).(*Identity)
	return i
}

// typ keeps other tokens that the same key may have signed away from here (RFC 8725, 3.11).
const typ = "postbus-identity+jwt"

// head is the first part of all that a key signs. So there is nothing to parse in it: it is known or it is not.
func head(key ed25519.PublicKey) string {
	return encode(fmt.Appendf(nil, `{"alg":"EdDSA","typ":%q,"kid":%q}`, typ, KeyID(key)))
}

// KeyID names a public key: the start of its SHA-256, in base64url.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return encode(sum[:12])
}

var base64url = base64.RawURLEncoding.Strict()

func encode(b []byte) string { return base64url.EncodeToString(b) }

// payload is what is signed.
type payload struct {
	Bridge   string         `json:"iss"`
	Audience string         `json:"aud"`
	Subject  string         `json:"sub"`
	Issuer   string         `json:"idp,omitempty"`
	Issued   int64          `json:"iat"`
	Expires  int64          `json:"exp"`
	Ends     int64          `json:"credentials_exp,omitempty"`
	Scope    []string       `json:"scopes,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
}

func (p *payload) identity() *Identity {
	i := &Identity{Subject: p.Subject, Issuer: p.Issuer, Bridge: p.Bridge, Scopes: p.Scope, Claims: p.Claims}
	if p.Ends != 0 {
		i.Expires = time.Unix(p.Ends, 0)
	}
	return i
}

func (p *payload) encode() ([]byte, error) { return json.Marshal(p) }
