package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// JWTPolicy says which bearer tokens [JWT] takes. Issuer, Audience, Algorithms and JWKS are needed; what else is zero has a
// good default.
type JWTPolicy struct {
	// Issuer is the iss that tokens must have, as it stands there.
	Issuer string

	// Audience has the names of this API: tokens must have one of them in their aud. A token for somebody else is none for us.
	Audience []string

	// Algorithms are the ones that tokens may be signed with: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512,
	// EdDSA. There is no default: what the issuer signs with is known, and nothing else is taken, whatever a token says
	// of itself. "none" and the HS family are never taken: what verifies them could sign them.
	Algorithms []string

	// JWKS is where the issuer's public keys are (RFC 7517): an https URL, or the path of a file. Plain http is for this machine
	// only, unless Insecure is set.
	JWKS     string
	Insecure bool

	// Claims are further claims that services are to know ([Identity]); all others stay here. Numbers are json.Number, as they
	// stand in the token. By default none.
	Claims []string

	// Leeway is how far the issuer's clock and ours may be apart, for exp, nbf and iat. By default 30 seconds, at most five
	// minutes.
	Leeway time.Duration

	// Refresh is how often keys are asked for at most when a token names one that is not known. By default a minute.
	Refresh time.Duration

	// Client fetches the keys. It must not follow redirects to where nobody should be led. By default one of its own, which
	// follows none.
	Client *http.Client

	// Realm names in challenges what is protected. By default "postbus".
	Realm string

	// Log gets a line when keys can't be fetched or used. By default slog.Default() when JWT is called.
	Log *slog.Logger
}

// JWT takes bearer tokens (RFC 6750) in the Authorization header, never in a URL, that are JSON Web Tokens (RFC 7519, and
// RFC 8725 for what to beware of): signed with one of the algorithms by a key of the JWKS that fits it; of the issuer, for the
// audience; with exp, and within exp and nbf; not issued in the future; with a sub. Critical headers are refused, there is none
// that is understood here.
//
// The identity has sub, iss and exp, the scopes of scope (RFC 8693, 4.2) and scp, and the claims that the policy names.
//
// Keys are fetched at the first token, which waits; a file is read at once, too. They are fetched again when a token names a key that
// is not known, as after a rotation, at most once in Refresh, and every 15 minutes (a file: in Refresh) while tokens
// come, which wait for neither. A fetch takes at most five seconds and 1 MiB; if it fails, the keys that are known stay good. While the last
// fetch has failed, a token of an unknown key is unavailable (503), not bad.
//
// A token is verified for each request, when it arrives; nothing of it is remembered. So a stream that was opened with a token
// goes on after the token's exp, for as long as both ends like. The error joins all faults of the policy.
func JWT(p JWTPolicy) (Authenticator, error) {
	if err := p.fault(); err != nil {
		return nil, err
	}
	p.complete()
	keys, err := newKeySet(&p)
	if err != nil {
		return nil, err
	}
	t := &tokens{
		policy: p, keys: keys, claims: slices.Clone(p.Claims),
		parser: jwt.NewParser(jwt.WithValidMethods(slices.Clone(p.Algorithms)), jwt.WithIssuer(p.Issuer),
			jwt.WithAudience(slices.Clone(p.Audience)...), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(p.Leeway),
			jwt.WithStrictDecoding()),
	}
	return t.authenticate, nil
}

const maxLeeway = 5 * time.Minute

func (p *JWTPolicy) fault() error {
	var faults []error
	fault := func(wrong bool, format string, a ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf("auth: JWT: "+format, a...))
		}
	}
	fault(p.Issuer == "", "the issuer is needed")
	fault(len(p.Audience) == 0 || slices.Contains(p.Audience, ""), "an audience is needed: the name of this API in tokens")
	fault(len(p.Algorithms) == 0, "the algorithms are needed: what the issuer signs with, such as ES256")
	for _, alg := range p.Algorithms {
		fault(strings.HasPrefix(alg, "HS"), "%s is signed with what verifies it: whoever verifies could sign", alg)
		fault(!strings.HasPrefix(alg, "HS") && !slices.Contains(algorithms, alg), "algorithm %.20q is none of %v", alg, algorithms)
	}
	fault(p.Leeway < 0 || p.Leeway > maxLeeway, "a leeway of %v is not between 0 and %v", p.Leeway, maxLeeway)
	fault(p.Refresh < 0, "to refresh every %v is negative", p.Refresh)
	fault(p.JWKS == "", "a JWKS is needed: the https URL or the file of the issuer's keys")
	return errors.Join(faults...)
}

func (p *JWTPolicy) complete() {
	if p.Leeway == 0 {
		p.Leeway = 30 * time.Second
	}
	if p.Refresh == 0 {
		p.Refresh = time.Minute
	}
	if p.Realm == "" {
		p.Realm = defaultRealm
	}
	if p.Log == nil {
		p.Log = slog.Default()
	}
}

// tokens authenticates by tokens.
type tokens struct {
	policy JWTPolicy
	claims []string
	keys   *keySet
	parser *jwt.Parser
}

func (t *tokens) authenticate(r *http.Request) (context.Context, error) {
	token, err := authorization(r, "Bearer")
	switch {
	case err != nil:
		return nil, err
	case token == "":
		return nil, none(challenge("Bearer", "realm", t.policy.Realm))
	}
	var claims exactClaims
	_, err = t.parser.ParseWithClaims(token, &claims, func(j *jwt.Token) (any, error) { return t.keysOf(r.Context(), j) })
	if unready, ok := errors.AsType[*endpoint.Error](err); ok {
		return nil, unready
	}
	if err != nil {
		return nil, t.bad(err)
	}
	who, err := t.identity(claims.MapClaims)
	if err != nil {
		return nil, t.bad(err)
	}
	return httpbridge.Identify(r.Context(), who), nil
}

// keysOf returns the keys that may have signed a token: those that it names, as far as they fit its algorithm.
func (t *tokens) keysOf(ctx context.Context, j *jwt.Token) (any, error) {
	if j.Header["crit"] != nil {
		return nil, errCritical
	}
	id, named := j.Header["kid"].(string)
	if !named && j.Header["kid"] != nil {
		return nil, errKey
	}
	keys, err := t.keys.find(ctx, id, j.Method.Alg())
	if err != nil {
		return nil, err
	}
	set := jwt.VerificationKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k)
	}
	return set, nil
}

func (t *tokens) identity(claims jwt.MapClaims) (*Identity, error) {
	subject, err := claims.GetSubject()
	if err != nil || subject == "" {
		return nil, errSubject
	}
	who := &Identity{Subject: subject, Issuer: t.policy.Issuer, Scopes: scopes(claims)}
	if exp, err := claims.GetExpirationTime(); err == nil && exp != nil {
		who.Expires = exp.Time
	}
	for _, name := range t.claims {
		if v, ok := claims[name]; ok {
			if who.Claims == nil {
				who.Claims = map[string]any{}
			}
			who.Claims[name] = v
		}
	}
	return who, nil
}

// scopes reads scope, words in a string, and scp, which some issuers have as that and some as a list.
func scopes(claims jwt.MapClaims) []string {
	var list []string
	for _, name := range []string{"scope", "scp"} {
		switch v := claims[name].(type) {
		case string:
			list = append(list, strings.Fields(v)...)
		case []any:
			for _, s := range v {
				if s, ok := s.(string); ok && s != "" {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

var (
	errCritical = errors.New("the token has a critical header, and none is understood here")
	errKey      = errors.New("the token is signed with no key that is known")
	errSubject  = errors.New("the token has no subject")
)

// bad refuses a token. What is wrong with it is told in words of ours; the rest is for the log.
func (t *tokens) bad(err error) error {
	why := "the token is malformed"
	for _, k := range []struct {
		is  error
		say string
	}{
		{errCritical, errCritical.Error()},
		{errKey, errKey.Error()},
		{errSubject, errSubject.Error()},
		{jwt.ErrTokenExpired, "the token has expired"},
		{jwt.ErrTokenNotValidYet, "the token is not valid yet"},
		{jwt.ErrTokenUsedBeforeIssued, "the token was issued in the future"},
		{jwt.ErrTokenInvalidAudience, "the token is for another audience"},
		{jwt.ErrTokenInvalidIssuer, "the token is of another issuer"},
		{jwt.ErrTokenRequiredClaimMissing, "the token lacks one of exp, iss, aud"},
		{jwt.ErrTokenSignatureInvalid, "the token's signature or algorithm is not valid"},
	} {
		if errors.Is(err, k.is) {
			why = k.say
			break
		}
	}
	return refuse(endpoint.Unauthenticated.Wrap(err, why).WithOutcome(endpoint.NotSent),
		challenge("Bearer", "realm", t.policy.Realm, "error", "invalid_token", "error_description", why))
}
