package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Signer signs identities for a bridge. It is safe for concurrent use.
//
// To sign takes some twenty microseconds, more than a small call costs otherwise. So a signature is given out again for
// [Reuse] to calls of the same identity to the same subject. The price: within [Life], whoever may read the requests of a
// subject can send others to it in the name of those it saw. These are the service's own instances, and those whom the broker
// lets subscribe there; they can't go to another subject with it, nor later, and a service that is asked by bus peers it
// doesn't trust is protected from each of them that can't listen along.
type Signer struct {
	bridge string
	key    ed25519.PrivateKey
	head   string
	made   recent[[sha256.Size]byte, signed]
}

type signed struct {
	value string
	until time.Time // given out again until then
}

// NewSigner makes a signer. The bridge's name is for logs and audits; it is not empty.
func NewSigner(bridge string, key ed25519.PrivateKey) (*Signer, error) {
	switch {
	case bridge == "":
		return nil, errors.New("the bridge has no name")
	case len(key) != ed25519.PrivateKeySize:
		return nil, fmt.Errorf("an Ed25519 key has %d bytes, this one %d", ed25519.PrivateKeySize, len(key))
	}
	public, _ := key.Public().(ed25519.PublicKey)
	return &Signer{bridge: bridge, key: key, head: head(public)}, nil
}

// ErrTooLarge is the fault of an identity that would have more than [MaxSize] when it is signed.
var ErrTooLarge = errors.New("the identity is too large")

// Sign returns the header's value for calls of i to a subject.
func (s *Signer) Sign(i *Identity, subject string, now time.Time) (string, error) {
	p := payload{
		Bridge: s.bridge, Audience: subject, Subject: i.Subject, Issuer: i.Issuer, Scope: i.Scopes, Claims: i.Claims,
	}
	if !i.Expires.IsZero() {
		p.Ends = i.Expires.Unix()
	}
	plain, err := p.encode()
	if err != nil {
		return "", fmt.Errorf("the identity can't be encoded: %w", err)
	}
	id := sha256.Sum256(plain)
	if m, ok := s.made.get(id); ok && now.Before(m.until) {
		return m.value, nil
	}
	return s.sign(&p, id, now)
}

func (s *Signer) sign(p *payload, id [sha256.Size]byte, now time.Time) (string, error) {
	p.Issued, p.Expires = now.Unix(), now.Add(Life).Unix() // whatever the credentials' end: they were good just now
	plain, err := p.encode()
	if err != nil {
		return "", err
	}
	text := s.head + "." + encode(plain)
	value := text + "." + encode(ed25519.Sign(s.key, []byte(text)))
	if len(value) > MaxSize {
		return "", fmt.Errorf("%w: signed it has %d bytes, at most %d are sent", ErrTooLarge, len(value), MaxSize)
	}
	s.made.add(id, signed{value, now.Add(Reuse)})
	return value, nil
}
