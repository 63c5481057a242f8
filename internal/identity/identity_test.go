package identity_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postbus.example/internal/assert"
	"postbus.example/internal/identity"
)

// key makes a key that is the same in each run.
func key(seed string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(sum[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var (
	now = time.Unix(1_800_000_000, 0)
	ann = &identity.Identity{
		Subject: "ann", Issuer: "https://id.example", Scopes: []string{"math:read", "math:write"},
		Claims: map[string]any{"tenant": "acme", "roles": []any{"a", "b"}}, Expires: now.Add(time.Hour),
	}
)

func signer(t testing.TB, seed string) *identity.Signer {
	t.Helper()
	s, err := identity.NewSigner("edge-1", key(seed))
	assert.NoError(t, err)
	return s
}

func sign(t testing.TB, s *identity.Signer, i *identity.Identity, subject string, at time.Time) string {
	t.Helper()
	v, err := s.Sign(i, subject, at)
	assert.NoError(t, err)
	return v
}

func verifier(t testing.TB, seeds ...string) *identity.Verifier {
	t.Helper()
	var keys []ed25519.PublicKey
	for _, s := range seeds {
		keys = append(keys, public(key(s)))
	}
	v, err := identity.NewVerifier(5*time.Second, keys...)
	assert.NoError(t, err)
	return v
}

func TestRoundTrip(t *testing.T) {
	v := verifier(t, "a")
	for range 2 { // verified, and looked up
		got, err := v.Verify(sign(t, signer(t, "a"), ann, "svc.add", now), "svc.add", now.Add(time.Second))
		assert.NoError(t, err)
		want := *ann
		want.Bridge = "edge-1"
		assert.Equal(t, *got, want)
	}
	bare := &identity.Identity{Subject: "key-7"}
	got, err := v.Verify(sign(t, signer(t, "a"), bare, "svc.add", now), "svc.add", now)
	assert.NoError(t, err)
	assert.Equal(t, *got, identity.Identity{Subject: "key-7", Bridge: "edge-1"})
}

// TestRoundTrip_numbers rounds none: an id of 17 digits is no other.
func TestRoundTrip_numbers(t *testing.T) {
	who := &identity.Identity{Subject: "ann", Claims: map[string]any{"id": json.Number("9007199254740993"), "list": []any{json.Number("1e2")}}}
	got, err := verifier(t, "a").Verify(sign(t, signer(t, "a"), who, "svc.add", now), "svc.add", now)
	assert.NoError(t, err)
	assert.Equal(t, got.Claims, who.Claims)
}

// TestGolden is what other languages have to read: RFC 7515 and RFC 8037, and nothing of our own.
func TestGolden(t *testing.T) {
	value := sign(t, signer(t, "a"), ann, "svc.add", now)
	parts := strings.Split(value, ".")
	assert.Equal(t, len(parts), 3)
	head, err := base64.RawURLEncoding.DecodeString(parts[0])
	assert.NoError(t, err)
	assert.Equal(t, string(head), `{"alg":"EdDSA","typ":"postbus-identity+jwt","kid":"`+identity.KeyID(public(key("a")))+`"}`)
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	assert.NoError(t, err)
	assert.Equal(t, string(payload), `{"iss":"edge-1","aud":"svc.add","sub":"ann","idp":"https://id.example","iat":1800000000,"exp":1800000030,`+
		`"credentials_exp":1800003600,"scopes":["math:read","math:write"],"claims":{"roles":["a","b"],"tenant":"acme"}}`)
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	assert.NoError(t, err)
	assert.True(t, ed25519.Verify(public(key("a")), []byte(parts[0]+"."+parts[1]), sig))
}

func TestRefused(t *testing.T) {
	s := signer(t, "a")
	value := sign(t, s, ann, "svc.add", now)
	parts := strings.Split(value, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	assert.NoError(t, err)
	enc := base64.RawURLEncoding.EncodeToString
	forged := func(payload string) string { return parts[0] + "." + enc([]byte(payload)) + "." + parts[2] }
	resigned := func(head, payload string) string {
		text := enc([]byte(head)) + "." + enc([]byte(payload))
		return text + "." + enc(ed25519.Sign(key("a"), []byte(text)))
	}
	for name, c := range map[string]struct {
		value, subject string
		at             time.Duration
		want           error
	}{
		"another subject":    {value, "svc.sub", 0, identity.ErrSubject},
		"too late":           {value, "svc.add", identity.Life + 5*time.Second, identity.ErrExpired},
		"too early":          {value, "svc.add", -6 * time.Second, identity.ErrEarly},
		"another key":        {sign(t, signer(t, "b"), ann, "svc.add", now), "svc.add", 0, identity.ErrKey},
		"empty":              {"", "svc.add", 0, identity.ErrMalformed},
		"two parts":          {parts[0] + "." + parts[1], "svc.add", 0, identity.ErrMalformed},
		"a fourth part":      {value + ".x", "svc.add", 0, identity.ErrMalformed},
		"no signature":       {parts[0] + "." + parts[1] + ".", "svc.add", 0, identity.ErrSignature},
		"half of it":         {value[:len(value)-22], "svc.add", 0, identity.ErrSignature},
		"no base64":          {parts[0] + "." + parts[1] + ".!", "svc.add", 0, identity.ErrMalformed},
		"a changed payload":  {forged(`{"iss":"edge-1","aud":"svc.add","sub":"root","iat":1800000000,"exp":1900000000}`), "svc.add", 0, identity.ErrSignature},
		"alg none":           {enc([]byte(`{"alg":"none","typ":"postbus-identity+jwt"}`)) + "." + parts[1] + ".", "svc.add", 0, identity.ErrKey},
		"another type":       {resigned(`{"alg":"EdDSA","typ":"JWT","kid":"`+identity.KeyID(public(key("a")))+`"}`, `{}`), "svc.add", 0, identity.ErrKey},
		"signed, no JSON":    {resigned(`{"alg":"EdDSA","typ":"postbus-identity+jwt","kid":"`+identity.KeyID(public(key("a")))+`"}`, `{`), "svc.add", 0, identity.ErrMalformed},
		"signed, and more":   {resigned(`{"alg":"EdDSA","typ":"postbus-identity+jwt","kid":"`+identity.KeyID(public(key("a")))+`"}`, string(payload)+`{}`), "svc.add", 0, identity.ErrMalformed},
		"far too long":       {value + strings.Repeat("x", identity.MaxSize), "svc.add", 0, identity.ErrMalformed},
		"at its last moment": {value, "svc.add", identity.Life + 4*time.Second, nil},
		"a clock behind":     {value, "svc.add", -5 * time.Second, nil},
	} {
		v := verifier(t, "a")
		for range 2 {
			got, err := v.Verify(c.value, c.subject, now.Add(c.at))
			assert.True(t, errors.Is(err, c.want), name, fmt.Sprint(err))
			assert.Equal(t, got != nil, c.want == nil, name)
		}
	}
}

func TestRotation(t *testing.T) {
	both := verifier(t, "old", "new")
	for _, seed := range []string{"old", "new"} {
		_, err := both.Verify(sign(t, signer(t, seed), ann, "svc.add", now), "svc.add", now)
		assert.NoError(t, err)
	}
}

// TestReuse signs once in ten seconds for each caller and subject.
func TestReuse(t *testing.T) {
	s := signer(t, "a")
	first := sign(t, s, ann, "svc.add", now)
	assert.Equal(t, sign(t, s, ann, "svc.add", now.Add(identity.Reuse-time.Second)), first)
	other := *ann // as a token that is parsed anew
	assert.Equal(t, sign(t, s, &other, "svc.add", now.Add(time.Second)), first)
	other.Scopes = nil
	for _, v := range []string{
		sign(t, s, &other, "svc.add", now), sign(t, s, ann, "svc.sub", now), sign(t, s, ann, "svc.add", now.Add(identity.Reuse)),
	} {
		assert.True(t, v != first)
	}
	for i := range 2500 { // two generations later it is forgotten, and made anew
		sign(t, s, &identity.Identity{Subject: fmt.Sprint(i)}, "svc.add", now)
	}
	assert.True(t, sign(t, s, ann, "svc.add", now.Add(time.Second)) != first)
}

func TestFaults(t *testing.T) {
	_, err := identity.NewSigner("", key("a"))
	assert.Contains(t, err.Error(), "name")
	_, err = identity.NewSigner("x", nil)
	assert.Contains(t, err.Error(), "64 bytes")
	_, err = identity.NewVerifier(-1, ed25519.PublicKey("short"))
	assert.Contains(t, err.Error(), "key 0", "32 bytes", "negative")
	_, err = identity.NewVerifier(0)
	assert.Contains(t, err.Error(), "no key")
	_, err = signer(t, "a").Sign(&identity.Identity{Subject: "x", Claims: map[string]any{"f": func() {}}}, "a", now)
	assert.Contains(t, err.Error(), "encoded")
	_, err = signer(t, "a").Sign(&identity.Identity{Subject: strings.Repeat("x", identity.MaxSize)}, "a", now)
	assert.ErrorIs(t, err, identity.ErrTooLarge)
	assert.Contains(t, err.Error(), "at most")
}

func TestAllows(t *testing.T) {
	assert.True(t, ann.Allows() && ann.Allows("math:write", "math:read") && !ann.Allows("math:read", "x") && !ann.Allows("math"))
	var nobody *identity.Identity
	assert.True(t, nobody.Allows() && !nobody.Allows("x"))
}

// FuzzVerify believes nothing that was not signed.
func FuzzVerify(f *testing.F) {
	s, err := identity.NewSigner("edge-1", key("a"))
	assert.NoError(f, err)
	good, err := s.Sign(ann, "svc.add", now)
	assert.NoError(f, err)
	v, err := identity.NewVerifier(0, public(key("a")))
	assert.NoError(f, err)
	f.Add(good, "svc.add")
	f.Add(good+"=", "svc.add")
	f.Add("..", "")
	f.Fuzz(func(t *testing.T, value, subject string) {
		got, err := v.Verify(value, subject, now)
		if err != nil {
			return
		}
		if clean := strings.NewReplacer("\r", "", "\n", "").Replace(value); clean != good || subject != "svc.add" {
			t.Errorf("%q was believed for %q", value, subject)
		}
		if data, err := json.Marshal(got.Claims); err != nil || got.Subject != "ann" {
			t.Errorf("%s %v", data, err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for name, cached := range map[string]bool{"cached": true, "fresh": false} {
		b.Run(name, func(b *testing.B) {
			s := signer(b, "a")
			at := now
			b.ReportAllocs()
			for b.Loop() {
				if !cached {
					at = at.Add(identity.Reuse)
				}
				sign(b, s, ann, "svc.add", at)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	b.Run("cached", func(b *testing.B) {
		v, value := verifier(b, "a"), sign(b, signer(b, "a"), ann, "svc.add", now)
		b.ReportAllocs()
		for b.Loop() {
			_, err := v.Verify(value, "svc.add", now)
			assert.NoError(b, err)
		}
	})
	b.Run("fresh", func(b *testing.B) {
		value := sign(b, signer(b, "a"), ann, "svc.add", now)
		b.ReportAllocs()
		for b.Loop() {
			_, err := verifier(b, "a").Verify(value, "svc.add", now)
			assert.NoError(b, err)
		}
	})
}
