package httpbridge

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/identity"
)

// Identity is who sent a request: what [WithAuth] found out, what rules judge, and what a service is told by [WithIdentity].
// It is shared by all who handle it, and nobody changes it once it is made.
//
//	Subject   who: the sub of a token, the name of a key; not empty
//	Issuer    who says so: the iss of a token; "" for keys of this bridge's own
//	Scopes    what it may do
//	Claims    further claims, as JSON has them: what services are to know, and no more; numbers read from JSON are json.Number
//	Expires   when the credentials end; zero: they don't; a stream that is open by then goes on, see [WithAuth]
//	Bridge    is for services: the bridge that vouches for all of it
//
// Allows reports whether it has all of the scopes that are named; nobody, nil, has none.
type Identity = identity.Identity

// Identify returns a context that knows who sent a request: what the function of [WithAuth] returns. The authenticators of
// httpbridge/auth do it.
func Identify(ctx context.Context, i *Identity) context.Context { return identity.NewContext(ctx, i) }

// IdentityFrom returns who sent a request, by the context that [WithAuth] returned; nil if nobody was identified.
func IdentityFrom(ctx context.Context) *Identity { return identity.FromContext(ctx) }

// WithIdentity tells services who calls: the identity that [WithAuth] found ([Identify]) travels with each call in the header
// Postbus-Identity, signed by this bridge with an Ed25519 key, and middleware.VerifyIdentity finds it there, on whatever bus.
// Peers there can read it, and can't make one: they have no key. Clients of the bridge can't send it: no header of theirs
// passes under that name, by whatever [WithHeaders].
//
// A signature is bound to the subject of the call, says which bridge made it, and is good for 30 seconds from then, which
// is the longest that a call may wait for its service. It is not bound to the body: the same is used for up to ten
// seconds for calls of one identity to one subject, which saves the time to sign. So whoever may listen to a subject can,
// within these seconds, send there again in the name of somebody who called, and nowhere else: that is for the broker's
// permissions to say.
//
// Signed, an identity has 4 KiB at most, which is some 3,000 bytes of names, scopes and claims. Calls of a larger one are
// refused as permission_denied (403), not sent: let its issuer give it fewer scopes, or name fewer claims.
//
// The key is named by what it is, so keys are changed without a gap: let services trust both, change the bridge's, forget
// the old one. Without WithAuth it is a fault. By default services are told nothing.
func WithIdentity(bridge string, key ed25519.PrivateKey) Option {
	return func(s *settings) {
		signer, err := identity.NewSigner(bridge, key)
		if s.signer != nil {
			err = errors.Join(err, errors.New("given twice; which one counts would be a guess"))
		}
		s.fault("WithIdentity", err)
		s.signer = signer
	}
}

// identified adds the signed identity to a call of t.
func (x *exchange) identified(ctx context.Context, t *target) (context.Context, error) {
	if x.signer == nil {
		return ctx, nil
	}
	who := IdentityFrom(ctx)
	if who == nil {
		return ctx, nil
	}
	value, err := x.signer.Sign(who, t.subject, time.Now())
	switch {
	case errors.Is(err, identity.ErrTooLarge): // a good token may have that many scopes
		return nil, endpoint.PermissionDenied.Wrap(err, "the identity is too large to be told to services").WithOutcome(endpoint.NotSent)
	case err != nil:
		return nil, endpoint.Internal.Wrap(err, "").WithOutcome(endpoint.NotSent)
	}
	return endpoint.WithHeader(ctx, identity.Header, value), nil
}
