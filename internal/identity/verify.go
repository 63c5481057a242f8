package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The faults of a signed identity. They are for logs: a peer is told none of it.
var (
	ErrMalformed = errors.New("the identity is malformed")
	ErrKey       = errors.New("the identity is signed with no key that is trusted here")
	ErrSignature = errors.New("the identity's signature does not fit")
	ErrSubject   = errors.New("the identity was signed for another subject")
	ErrExpired   = errors.New("the identity has expired")
	ErrEarly     = errors.New("the identity is of the future")
)

// Verifier verifies what signers signed. It is safe for concurrent use.
type Verifier struct {
	keys   map[string]ed25519.PublicKey // by the first part of what they sign
	leeway time.Duration
	good   recent[string, *verified] // whose signature was seen to fit
}

type verified struct {
	*Identity

	subject         string
	issued, expires time.Time
}

// NewVerifier makes a verifier that trusts the keys; leeway is how far the clocks of two machines may be apart.
func NewVerifier(leeway time.Duration, keys ...ed25519.PublicKey) (*Verifier, error) {
	v := &Verifier{keys: map[string]ed25519.PublicKey{}, leeway: leeway}
	var errs []error
	for i, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			errs = append(errs, fmt.Errorf("key %d: an Ed25519 public key has %d bytes, this one %d", i, ed25519.PublicKeySize, len(k)))
			continue
		}
		v.keys[head(k)] = k
	}
	if len(keys) == 0 {
		errs = append(errs, errors.New("there is no key to trust"))
	}
	if leeway < 0 {
		errs = append(errs, fmt.Errorf("a leeway of %v is negative", leeway))
	}
	return v, errors.Join(errs...)
}

// Verify returns whose call to a subject this is, which arrived at a time. A value that was verified before is looked up:
// to verify costs twice what signing does.
func (v *Verifier) Verify(value, subject string, at time.Time) (*Identity, error) {
	g, ok := v.good.get(value)
	if !ok {
		var err error
		if g, err = v.open(value); err != nil {
			return nil, err
		}
		v.good.add(value, g)
	}
	switch {
	case g.subject != subject:
		return nil, fmt.Errorf("%w: %.80q", ErrSubject, g.subject)
	case !at.Before(g.expires.Add(v.leeway)):
		return nil, ErrExpired
	case at.Before(g.issued.Add(-v.leeway)):
		return nil, ErrEarly
	}
	return g.Identity, nil
}

func (v *Verifier) open(value string) (*verified, error) {
	first, rest, _ := strings.Cut(value, ".")
	second, third, ok := strings.Cut(rest, ".")
	if !ok || len(value) > MaxSize {
		return nil, ErrMalformed
	}
	key := v.keys[first]
	if key == nil {
		return nil, ErrKey
	}
	sig, err := base64url.DecodeString(third)
	if err != nil {
		return nil, ErrMalformed
	}
	if !ed25519.Verify(key, []byte(value[:len(first)+1+len(second)]), sig) {
		return nil, ErrSignature
	}
	plain, err := base64url.DecodeString(second)
	if err != nil {
		return nil, ErrMalformed
	}
	p, err := decode(plain)
	if err != nil {
		return nil, ErrMalformed
	}
	return &verified{p.identity(), p.Audience, time.Unix(p.Issued, 0), time.Unix(p.Expires, 0)}, nil
}

// decode keeps numbers as they are: a float64 would round a large id to another one.
func decode(plain []byte) (*payload, error) {
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	p := new(payload)
	if err := d.Decode(p); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrMalformed
	}
	return p, nil
}
