package middleware

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"time"

	"postbus.example/endpoint"
	callerid "postbus.example/internal/identity" // identity tells calls apart here, not callers
)

// Identity is who sent a request over a bridge, as the bridge vouches for it: see httpbridge.Identity.
type Identity = callerid.Identity

// IdentityFrom returns who sent the request that a handler works on, as [VerifyIdentity] verified it; nil if nobody is known.
func IdentityFrom(ctx context.Context) *Identity { return callerid.FromContext(ctx) }

// IdentityPolicy says whom [VerifyIdentity] believes.
type IdentityPolicy struct {
	// Keys are the public keys of the bridges that are trusted, at least one. Two of one bridge let it change from one to
	// the other without a gap.
	Keys []ed25519.PublicKey

	// Optional lets calls without an identity through, such as those of other services: IdentityFrom is nil for them. One that
	// is there must be good in any case. By default a call without is refused.
	Optional bool

	// Scopes are what a caller must be allowed to do. By default nothing. With Optional, nobody has none of them.
	Scopes []string

	// Leeway is how far the clocks of a bridge and of this machine may be apart. By default 5 seconds.
	Leeway time.Duration
}

// VerifyIdentity lets handlers know who calls over an HTTP bridge, and refuses calls of which that can't be told: the
// header Postbus-Identity must be signed with one of the policy's keys, by httpbridge.WithIdentity, for the subject of this call,
// within the last 30 seconds when it arrived here. [IdentityFrom] returns it.
//
// What lacks, or is malformed, forged, of another subject or too old is unauthenticated, without text and not executed; what is wrong with
// it stands in the cause, for logs. A caller without the policy's scopes is permission_denied.
//
// It is as good as the bridge's key is kept, and it is no protection from a peer that may listen to the same subject:
// that one can repeat what it saw, with a body of its own, for the rest of those 30 seconds. A call that a service makes
// for somebody does not carry that somebody along: the identity is good for the subject it was signed for. Where accounts of the
// broker map a subject to another name, it is good for neither.
//
// VerifyIdentity acts on the server's side, on all kinds, streams when they are opened; callers pass through. It costs two
// allocations, and the time to verify a signature where the same was not seen in the last calls. [Cache] and [Coalesce]
// stand inside of it. A policy without keys is a fault: each call is refused.
func VerifyIdentity(p IdentityPolicy) endpoint.Middleware {
	v, err := p.verifier()
	if err != nil {
		return endpoint.OnServer(broken("VerifyIdentity", err))
	}
	lacking := endpoint.PermissionDenied.New("the caller lacks a scope")
	return Authenticate(func(ctx context.Context, c *endpoint.Call) (context.Context, error) {
		who, err := verifyOne(v, c)
		switch {
		case errors.Is(err, errNoIdentity) && p.Optional:
		case err != nil:
			return nil, err
		}
		if !who.Allows(p.Scopes...) {
			return nil, lacking
		}
		return callerid.NewContext(ctx, who), nil
	})
}

func (p *IdentityPolicy) verifier() (*callerid.Verifier, error) {
	leeway := p.Leeway
	if leeway == 0 {
		leeway = 5 * time.Second
	}
	return callerid.NewVerifier(leeway, p.Keys...)
}

var errNoIdentity = errors.New("the call has no identity")

// verifyOne takes no choice among several: who would choose is who sent them.
func verifyOne(v *callerid.Verifier, c *endpoint.Call) (*Identity, error) {
	var value string
	n := 0
	for name, val := range c.Header.All() {
		if strings.EqualFold(name, callerid.Header) {
			value = val
			n++
		}
	}
	switch n {
	case 0:
		return nil, errNoIdentity
	case 1:
		return v.Verify(value, c.Subject, c.Received())
	}
	return nil, errors.New("the call has more than one identity")
}
