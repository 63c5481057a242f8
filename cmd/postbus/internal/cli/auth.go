package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
)

// admission is who may call through the bridge.
type admission struct {
	APIKeys       string   `group:"auth" name:"api-keys" placeholder:"FILE" help:"A list of API keys: on each line a subject, a key's SHA-256 and its scopes. It may change while the bridge runs. postbus key makes keys."`
	JWTIssuer     string   `group:"auth" name:"jwt-issuer" placeholder:"URL" help:"Take bearer tokens of this issuer."`
	JWTAudience   []string `group:"auth" name:"jwt-audience" placeholder:"NAME" help:"What tokens must be meant for: the name of this API."`
	JWTAlgorithms []string `group:"auth" name:"jwt-algorithms" placeholder:"NAME" help:"What tokens may be signed with: ES256, EdDSA, RS256 and their kin. There is no default."`
	JWTKeys       string   `group:"auth" name:"jwt-keys" placeholder:"URL" help:"Where the issuer's keys are (JWKS): an https URL, or a file."`
	JWTClaims     []string `group:"auth" name:"jwt-claims" placeholder:"NAME" help:"Further claims that services are to know."`
	Scope         []string `group:"auth" sep:"none" placeholder:"RULE" help:"What calls need: 'math.*=math:read math:write' asks for both scopes. All rules that match count."`
	ScopeStrict   bool     `group:"auth" help:"Deny what no --scope rule matches."`
	IdentityKey   string   `group:"auth" placeholder:"FILE" help:"An Ed25519 key (PKCS 8, PEM) that signs who calls, for services to verify."`
}

// some reports whether anybody is asked who they are.
func (a *admission) some() bool { return a.APIKeys != "" || a.jwt() }

func (a *admission) jwt() bool {
	return a.JWTIssuer != "" || a.JWTKeys != "" || len(a.JWTAudience)+len(a.JWTAlgorithms)+len(a.JWTClaims) > 0
}

// options notes what is wrong. The name is the bridge's in what it signs. A nil log says nothing.
func (a *admission) options(name string, log *slog.Logger, f *faults) []httpbridge.Option {
	var options []httpbridge.Option
	if a.some() {
		options = append(options, httpbridge.WithAuth(auth.Any(a.authenticators(log, f)...)))
	}
	if len(a.Scope) > 0 || a.ScopeStrict {
		if !a.some() {
			f.addf("--scope", "needs to know who calls: give --api-keys or --jwt-issuer")
		}
		options = append(options, a.rules(f)...)
	}
	if a.IdentityKey != "" {
		if !a.some() {
			f.addf("--identity-key", "needs to know who calls: give --api-keys or --jwt-issuer")
		}
		key, err := readKey(a.IdentityKey)
		f.add("--identity-key", err)
		if err == nil {
			options = append(options, httpbridge.WithIdentity(name, key))
		}
	}
	return options
}

func (a *admission) authenticators(log *slog.Logger, f *faults) []auth.Authenticator {
	var all []auth.Authenticator
	if a.APIKeys != "" {
		keys, err := auth.APIKeyFileLog(a.APIKeys, log)
		a.note(f, "--api-keys", err)
		all = append(all, keys)
	}
	if a.jwt() {
		tokens, err := auth.JWT(auth.JWTPolicy{
			Issuer: a.JWTIssuer, Audience: a.JWTAudience, Algorithms: a.JWTAlgorithms, JWKS: a.JWTKeys, Claims: a.JWTClaims, Log: log,
		})
		a.note(f, "--jwt-…", err)
		all = append(all, tokens)
	}
	return all
}

// note has each of the package's faults stand for itself.
func (*admission) note(f *faults, where string, err error) {
	for _, e := range parts(err) {
		text := strings.TrimPrefix(strings.TrimPrefix(e.Error(), "auth: "), "JWT: ")
		f.addf(where, "%s", strings.ReplaceAll(text, "\n", "; "))
	}
}

// rules reads the rules of scopes.
func (a *admission) rules(f *faults) []httpbridge.Option {
	var rules []auth.Requirement
	for _, r := range a.Scope {
		pattern, scopes, _ := strings.Cut(r, "=")
		rules = append(rules, auth.Rule(strings.TrimSpace(pattern), strings.Fields(scopes)...))
	}
	judgeBy := auth.Rules
	if a.ScopeStrict {
		judgeBy = auth.StrictRules
	}
	judge, err := judgeBy(rules...)
	a.note(f, "--scope", err)
	if err != nil {
		judge = func(context.Context, string) error { return err }
	}
	return []httpbridge.Option{httpbridge.WithAuthorization(judge)}
}

func readKey(file string) (ed25519.PrivateKey, error) {
	text, err := readAll(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("has no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("is no key in PKCS 8") // the fault's own text may quote the key
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("is a %T, and must be of Ed25519", key)
	}
	return private, nil
}
