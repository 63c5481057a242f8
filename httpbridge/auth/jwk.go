package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// algorithms are the ones that tokens can be signed with.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// rsaAlgorithms are those of an RSA key.
var rsaAlgorithms = algorithms[:6]

const (
	maxKeys    = 100
	minRSABits = 2048 // NIST SP 800-131A
	maxRSABits = 8192 // what verifies larger ones is busy for milliseconds
)

// publicKey is one that may verify tokens: an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey.
type publicKey struct {
	id  string
	alg []string // what it fits, and is for
	key any
}

// jwk is a key as RFC 7517 and RFC 7518, 6 have it.
type jwk struct {
	Type       string   `json:"kty"`
	ID         string   `json:"kid"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	N          string   `json:"n"`
	E          string   `json:"e"`
	Curve      string   `json:"crv"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
}

// parseKeySet returns the keys of a JWK set that may verify tokens. Those that are for something else, or of a kind that is not
// known, don't count (RFC 7517, 5); those that are broken or too weak are faults, joined. A set without any that counts is
// no set.
func parseKeySet(data []byte) (keys []publicKey, faults, err error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, nil, fmt.Errorf("it is no JWK set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("it has %d keys, at most %d are taken", len(set.Keys), maxKeys)
	}
	var complaints []error
	for i, k := range set.Keys {
		p, err := k.public()
		switch {
		case err != nil:
			complaints = append(complaints, fmt.Errorf("key %d (kid %.80q): %w", i, k.ID, err))
		case p != nil:
			keys = append(keys, *p)
		}
	}
	faults = errors.Join(complaints...)
	if len(keys) == 0 {
		return nil, nil, errors.Join(errors.New("no key in it can verify tokens"), faults)
	}
	return keys, faults, nil
}

// public returns nil for a key that is not for us.
func (k *jwk) public() (*publicKey, error) {
	if k.Use != "" && k.Use != "sig" || k.Operations != nil && !slices.Contains(k.Operations, "verify") {
		return nil, nil
	}
	var p publicKey
	var err error
	switch k.Type {
	case "RSA":
		p, err = k.rsa()
	case "EC":
		p, err = k.ec()
	case "OKP":
		p, err = k.okp()
	default: // oct is a secret, which is no key for us
		return nil, nil
	}
	if err != nil || p.key == nil {
		return nil, err
	}
	if p.id = k.ID; k.Algorithm != "" {
		if !slices.Contains(p.alg, k.Algorithm) {
			return nil, fmt.Errorf("a key of type %s is not for %.20q", k.Type, k.Algorithm)
		}
		p.alg = []string{k.Algorithm}
	}
	return &p, nil
}

func (k *jwk) rsa() (publicKey, error) {
	n, err := number(k.N)
	if err != nil {
		return publicKey{}, fmt.Errorf("n %w", err)
	}
	e, err := number(k.E)
	if err != nil {
		return publicKey{}, fmt.Errorf("e %w", err)
	}
	switch bits := n.BitLen(); {
	case bits < minRSABits, bits > maxRSABits:
		return publicKey{}, fmt.Errorf("an RSA key of %d bits, between %d and %d are taken", bits, minRSABits, maxRSABits)
	case e.BitLen() > 31, e.Int64() < 3, e.Int64()%2 == 0:
		return publicKey{}, errors.New("the exponent is none that is in use")
	}
	return publicKey{alg: rsaAlgorithms, key: &rsa.PublicKey{N: n, E: int(e.Int64())}}, nil
}

func (k *jwk) ec() (publicKey, error) {
	var curve elliptic.Curve
	var alg string
	switch k.Curve {
	case "P-256":
		curve, alg = elliptic.P256(), "ES256"
	case "P-384":
		curve, alg = elliptic.P384(), "ES384"
	case "P-521":
		curve, alg = elliptic.P521(), "ES512"
	default:
		return publicKey{}, nil
	}
	size := (curve.Params().BitSize + 7) / 8
	x, errX := octets(k.X, size)
	y, errY := octets(k.Y, size)
	if err := errors.Join(errX, errY); err != nil {
		return publicKey{}, fmt.Errorf("x or y %w", err)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y)) // is it on the curve?
	if err != nil {
		return publicKey{}, err
	}
	return publicKey{alg: []string{alg}, key: key}, nil
}

func (k *jwk) okp() (publicKey, error) {
	if k.Curve != "Ed25519" {
		return publicKey{}, nil
	}
	x, err := octets(k.X, ed25519.PublicKeySize)
	if err != nil {
		return publicKey{}, fmt.Errorf("x %w", err)
	}
	return publicKey{alg: []string{"EdDSA"}, key: ed25519.PublicKey(x)}, nil
}

func number(s string) (*big.Int, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 || len(b) > maxRSABits/8+1 {
		return nil, errors.New("is not a number in base64url")
	}
	return new(big.Int).SetBytes(b), nil
}

func octets(s string, size int) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("is not %d bytes in base64url", size)
	}
	return b, nil
}
