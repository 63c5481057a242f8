package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"postbus.example/endpoint"
)

const (
	fetchTimeout = 5 * time.Second
	maxAge       = 15 * time.Minute // of keys that were fetched, before they are fetched again
)

// keySet is the public keys of an issuer, as far as they are known. They are fetched by one at a time, who ends by a
// timeout, in a goroutine, so that a client that leaves takes nobody's keys along.
type keySet struct {
	fetch    func(context.Context) ([]byte, error)
	interval time.Duration // between two fetches for the sake of an unknown key
	age      time.Duration // of keys that are known
	log      *slog.Logger
	from     string

	mu     sync.Mutex
	keys   []publicKey
	asked  time.Time
	flight chan struct{} // closed when the fetch under way is over; nil if there is none
	failed bool          // the last one
}

// newKeySet reads a file at once, to tell its faults.
func newKeySet(p *JWTPolicy) (*keySet, error) {
	s := &keySet{interval: p.Refresh, age: maxAge, log: p.Log, from: p.JWKS}
	if !strings.Contains(p.JWKS, "://") {
		s.age = p.Refresh
		s.fetch = func(context.Context) ([]byte, error) {
			data, _, err := readFile(p.JWKS)
			return data, err
		}
		keys, err := s.load(context.Background())
		s.keys, s.asked = keys, time.Now()
		return s, err
	}
	u, err := url.Parse(p.JWKS)
	switch {
	case err != nil:
		return nil, fmt.Errorf("auth: JWKS: %w", err)
	case u.Scheme != "https" && (u.Scheme != "http" || !p.Insecure && !loopback(u.Hostname())):
		return nil, fmt.Errorf("auth: JWKS %s: https is needed, or who is in between chooses the keys", u.Redacted())
	}
	client := p.Client
	if client == nil {
		client = newClient()
	}
	s.from = u.Redacted()
	s.fetch = func(ctx context.Context) ([]byte, error) { return get(ctx, client, u.String()) }
	return s, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newClient keeps no connections: keys are fetched now and then.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
	}
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("the answer has more than %d bytes", maxFile)
	}
	return data, err
}

// find returns the keys that may have signed with an algorithm: those of the id, or, without one, the only one there is.
func (s *keySet) find(ctx context.Context, id, alg string) ([]any, error) {
	if keys := s.known(id, alg); keys != nil {
		s.ask(s.age)
		return keys, nil
	}
	select {
	case <-s.ask(s.interval):
	case <-ctx.Done():
		return nil, endpoint.ContextError(ctx).WithOutcome(endpoint.NotSent)
	}
	if keys := s.known(id, alg); keys != nil {
		return keys, nil
	}
	if s.unsure() {
		return nil, endpoint.Unavailable.New("the issuer's keys can't be had now").WithOutcome(endpoint.NotSent).WithRetryAfter(s.interval)
	}
	return nil, errKey
}

func (s *keySet) known(id, alg string) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []any
	for _, k := range s.keys {
		if (k.id == id || id == "" && len(s.keys) == 1) && slices.Contains(k.alg, alg) {
			keys = append(keys, k.key)
		}
	}
	return keys
}

func (s *keySet) unsure() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// ask starts a fetch unless one is under way or was started within the pause. The channel is closed when the latest one is
// over.
func (s *keySet) ask(pause time.Duration) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight
	}
	flight := make(chan struct{})
	if now := time.Now(); s.asked.IsZero() || now.Sub(s.asked) >= pause {
		s.asked, s.flight = now, flight
		go s.refresh(flight)
		return flight
	}
	close(flight)
	return flight
}

// refresh ends by its timeout.
func (s *keySet) refresh(flight chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	keys, err := s.load(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed = err != nil; s.failed {
		s.log.Error("a JWK set can't be had; keys that are known stay good", "error", err)
	} else {
		s.keys = keys
	}
	s.flight = nil
	close(flight)
}

// load fetches, and tells the log what is left out.
func (s *keySet) load(ctx context.Context) ([]publicKey, error) {
	data, err := s.fetch(ctx)
	if err != nil {
		return nil, s.fault(err)
	}
	keys, faults, err := parseKeySet(data)
	if err != nil {
		return nil, s.fault(err)
	}
	if faults != nil {
		s.log.Warn("keys of a JWK set are left out", "from", s.from, "error", faults)
	}
	return keys, nil
}

func (s *keySet) fault(err error) error { return fmt.Errorf("auth: JWKS %s: %w", s.from, err) }
