// Package auth says who may call what through an HTTP bridge: API keys, bearer tokens, and the scopes that endpoints ask for.
//
//	keys, err := auth.APIKeyFile("keys.txt")
//	tokens, err := auth.JWT(auth.JWTPolicy{
//		Issuer: "https://id.example", Audience: []string{"https://api.example"},
//		Algorithms: []string{"ES256"}, JWKS: "https://id.example/jwks.json",
//	})
//	rules, err := auth.Rules(auth.Rule("math.*", "math:read"), auth.Rule("math.store", "math:write"))
//
//	httpbridge.New(bus, httpbridge.Expose("math.*"),
//		httpbridge.WithAuth(auth.Any(keys, tokens)), // who is it?          401
//		httpbridge.WithAuthorization(rules),         // may they do this?   403
//		httpbridge.WithIdentity("edge-1", private))  // services are told, see middleware.VerifyIdentity
//
// # What is decided where
//
// An [Authenticator] finds out who sent a request, once, before its body is read, and puts the [Identity] into the context.
// [Rules] judge each call by that and by the subject. Both run in the bridge; services believe the bridge's signature, and
// may ask for scopes themselves.
//
// # What a refused client is told
//
//	no credentials         401  WWW-Authenticate: Bearer realm="postbus"  (one line for each kind that is taken)
//	bad or old ones        401  … error="invalid_token", error_description="…" (RFC 6750, 3)
//	two of one kind        400
//	a scope is missing     403  … error="insufficient_scope", scope="…"
//	keys can't be fetched  503  with Retry-After: nobody can tell whether the token is good
//
// Which of a fixed list of things is wrong with a token is told; what was compared with what is logged only. Credentials
// go into no log, and to no service unless httpbridge.WithHeaders names their header.
package auth
