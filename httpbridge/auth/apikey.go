package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// Key is an API key as the bridge has it: its hash, so that who reads the list can't use it.
type Key struct {
	Subject string    // who has it; several keys of one subject are how a key is changed without a gap
	Hash    string    // what HashKey makes of the key
	Scopes  []string  // what it is good for
	Expires time.Time // the key is refused from then on; zero: never
}

// NewKey makes an API key of 130 random bits, for its owner, and its hash, for the list.
func NewKey() (key, hash string) {
	key = rand.Text()
	return key, HashKey(key)
}

// HashKey returns the SHA-256 of an API key in hexadecimal. There is no salt and no work factor in it: a key is random and
// long, as those of [NewKey] are, and not a password that somebody made up.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// APIKeys takes the keys of a list, from the header X-API-Key or Authorization: ApiKey …. The identity's Issuer is "". The
// error joins all faults: no subject, a hash that is none, one hash twice.
//
// A key is looked up when a request arrives. A stream that was opened with it goes on after the key has expired or left the list.
//
// What was sent is hashed, and found by a keyed hash of that: how long it takes says nothing of how near a guess came.
func APIKeys(keys ...Key) (Authenticator, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("auth: %w", errNoKey)
	}
	list, err := newKeyList(keys)
	if err != nil {
		return nil, err
	}
	return list.authenticate, nil
}

// errNoKey is for the start: a list that was meant to be empty is seldom meant.
var errNoKey = errors.New("there is no API key")

type digest [sha256.Size]byte

// keyList finds keys. It never changes.
type keyList struct {
	secret digest // of this list alone, so that nobody can aim at a place in the map
	byHash map[digest]*listed
}

type listed struct {
	hash digest
	who  Identity
}

func newKeyList(keys []Key) (*keyList, error) {
	l := &keyList{byHash: map[digest]*listed{}}
	_, _ = rand.Read(l.secret[:]) // never fails
	var faults []error
	for _, k := range keys {
		var hash digest
		n, err := hex.Decode(hash[:], []byte(k.Hash)[:min(len(k.Hash), 2*len(hash))])
		place := l.place(hash)
		switch {
		case k.Subject == "":
			faults = append(faults, errors.New("auth: an API key belongs to nobody"))
		case err != nil || n != len(hash) || len(k.Hash) != 2*n:
			faults = append(faults, fmt.Errorf("auth: the API key of %q: its hash is not the hexadecimal of a SHA-256", k.Subject))
		case l.byHash[place] != nil:
			faults = append(faults, fmt.Errorf("auth: the API keys of %q and %q are the same", l.byHash[place].who.Subject, k.Subject))
		}
		l.byHash[place] = &listed{hash, Identity{Subject: k.Subject, Scopes: k.Scopes, Expires: k.Expires}}
	}
	return l, errors.Join(faults...)
}

func (l *keyList) place(hash digest) digest {
	h := hmac.New(sha256.New, l.secret[:])
	h.Write(hash[:])
	return digest(h.Sum(nil))
}

func (l *keyList) authenticate(r *http.Request) (context.Context, error) {
	key, err := apiKey(r)
	if err != nil {
		return nil, err
	}
	hash := digest(sha256.Sum256([]byte(key)))
	k := l.byHash[l.place(hash)]
	switch {
	case k == nil, subtle.ConstantTimeCompare(k.hash[:], hash[:]) == 0:
		return nil, badKey("the API key is not known")
	case !k.who.Expires.IsZero() && !time.Now().Before(k.who.Expires):
		return nil, badKey("the API key has expired")
	}
	return httpbridge.Identify(r.Context(), &k.who), nil
}

// apiKey finds the key that a request brings.
func apiKey(r *http.Request) (string, error) {
	values := r.Header["X-Api-Key"]
	key, err := authorization(r, "ApiKey")
	switch {
	case err != nil:
		return "", err
	case len(values) > 1, len(values) == 1 && key != "":
		return "", repeated("X-API-Key")
	case len(values) == 1:
		key = strings.TrimSpace(values[0])
	}
	if key == "" {
		return "", none(challenge("ApiKey", "realm", defaultRealm))
	}
	return key, nil
}

func badKey(why string) error {
	return refuse(endpoint.Unauthenticated.New(why).WithOutcome(endpoint.NotSent),
		challenge("ApiKey", "realm", defaultRealm, "error", "invalid_token", "error_description", why))
}
