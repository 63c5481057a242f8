package auth_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"postbus.example/endpoint"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

// publisher is where keys are fetched from.
type publisher struct {
	status  int
	body    []byte
	err     error
	takes   time.Duration
	fetched atomic.Int64
}

func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	p.fetched.Add(1)
	select {
	case <-time.After(p.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if p.err != nil {
		return nil, p.err
	}
	return &http.Response{StatusCode: p.status, Status: http.StatusText(p.status), Body: io.NopCloser(bytes.NewReader(p.body)), Request: r}, nil
}

// fetching makes an authenticator of Ed25519 tokens that fetches keys, and a function that asks it about one.
func fetching(t testing.TB, p *publisher) (ask func(token string) error) {
	t.Helper()
	pol := policy("https://id.example/jwks.json")
	pol.Client, pol.Log = &http.Client{Transport: p}, slog.New(slog.DiscardHandler)
	tokens, err := auth.JWT(pol)
	assert.NoError(t, err)
	return func(token string) error {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		r.Header.Set("Authorization", "Bearer "+token)
		_, err := tokens(r)
		synctest.Wait()
		return err
	}
}

func TestKeySet_rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer()
		token := func(id string) string { return mint(t, jwt.SigningMethodEdDSA, i.ed, id, claims("exp", 1e10)) }
		p := &publisher{status: 200, body: jwks(edJWK("old", i.ed))}
		ask := fetching(t, p)
		assert.Equal(t, p.fetched.Load(), 0)
		assert.NoError(t, ask(token("old")))
		assert.NoError(t, ask(token("old")))
		assert.Equal(t, p.fetched.Load(), 1)

		p.body = jwks(edJWK("old", i.ed), edJWK("new", i.ed))
		for range 100 { // nobody makes us fetch more often than once in a minute
			assert.ErrorIs(t, ask(token("new")), endpoint.Unauthenticated)
		}
		assert.Equal(t, p.fetched.Load(), 1)
		time.Sleep(time.Minute)
		assert.NoError(t, ask(token("new")))
		assert.NoError(t, ask(token("old")), "while both are published both are good")
		assert.Equal(t, p.fetched.Load(), 2)

		p.body = jwks(edJWK("new", i.ed))
		assert.NoError(t, ask(token("old")))
		time.Sleep(15 * time.Minute)
		assert.NoError(t, ask(token("new")))
		assert.ErrorIs(t, ask(token("old")), endpoint.Unauthenticated, "what is not published any more is forgotten")
		assert.Equal(t, p.fetched.Load(), 3)
	})
}

func TestKeySet_failures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer()
		token := func(id string) string { return mint(t, jwt.SigningMethodEdDSA, i.ed, id, claims("exp", 1e10)) }
		p := &publisher{err: errors.New("secret: no route")}
		ask := fetching(t, p)
		err := ask(token("a"))
		assert.ErrorIs(t, err, endpoint.Unavailable, "nobody can tell whether it is good")
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.RetryAfter, time.Minute)
		assert.True(t, !strings.Contains(err.Error(), "secret"))

		time.Sleep(time.Minute)
		p.err, p.status, p.body = nil, 200, jwks(edJWK("a", i.ed))
		assert.NoError(t, ask(token("a")))
		for name, broken := range map[string]*publisher{
			"down": {err: errors.New("down")}, "500": {status: 500, body: p.body}, "a page": {status: 200, body: []byte("<html>")},
			"nothing of use": {status: 200, body: []byte(`{"keys":[]}`)}, "too much": {status: 200, body: append(bytes.Repeat([]byte(" "), 1<<20), p.body...)},
			"stuck": {takes: time.Hour},
		} {
			p.err, p.status, p.body, p.takes = broken.err, broken.status, broken.body, broken.takes
			time.Sleep(time.Minute)
			assert.ErrorIs(t, ask(token("b")), endpoint.Unavailable, name)
			assert.NoError(t, ask(token("a")), "what is known stays good: "+name)
		}
		time.Sleep(24 * time.Hour)
		assert.NoError(t, ask(token("a")))
		time.Sleep(fetchBound)
	})
}

// fetchBound is how long a fetch may take.
const fetchBound = 5 * time.Second

// TestKeySet_waiting lets a client leave that waits for keys, and the keys come for the next one.
func TestKeySet_waiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer()
		p := &publisher{status: 200, body: jwks(edJWK("a", i.ed)), takes: 3 * time.Second}
		pol := policy("https://id.example/jwks.json")
		pol.Client, pol.Log = &http.Client{Transport: p}, slog.New(slog.DiscardHandler)
		tokens, err := auth.JWT(pol)
		assert.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
		r.Header.Set("Authorization", "Bearer "+mint(t, jwt.SigningMethodEdDSA, i.ed, "a", claims("exp", 1e10)))
		_, err = tokens(r)
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		_, err = tokens(r.WithContext(t.Context()))
		assert.NoError(t, err)
		assert.Equal(t, p.fetched.Load(), 1)
	})
}

func TestKeySet_file(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer()
		path := jwksFile(t, jwks(edJWK("old", i.ed)))
		pol := policy(path)
		pol.Log = slog.New(slog.DiscardHandler)
		tokens, err := auth.JWT(pol)
		assert.NoError(t, err)
		ask := func(id string) error {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
			r.Header.Set("Authorization", "Bearer "+mint(t, jwt.SigningMethodEdDSA, i.ed, id, claims("exp", 1e10)))
			_, err := tokens(r)
			synctest.Wait()
			return err
		}
		assert.NoError(t, ask("old"))
		assert.NoError(t, os.WriteFile(path, jwks(edJWK("new", i.ed)), 0o600))
		time.Sleep(time.Minute)
		assert.NoError(t, ask("new"))
		assert.ErrorIs(t, ask("old"), endpoint.Unauthenticated)
	})
}

// TestKeySet_client fetches over a real connection, follows no redirect, and plain http on this machine only.
func TestKeySet_client(t *testing.T) {
	i := newIssuer()
	mux := http.NewServeMux()
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(i.jwks()) })
	mux.Handle("/moved", http.RedirectHandler("/jwks", http.StatusFound))
	s := httptest.NewServer(mux)
	defer s.Close()
	for path, want := range map[string]error{"/jwks": nil, "/moved": endpoint.Unavailable} {
		pol := policy(s.URL + path)
		pol.Log = slog.New(slog.DiscardHandler)
		tokens, err := auth.JWT(pol)
		assert.NoError(t, err)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		r.Header.Set("Authorization", "Bearer "+mint(t, jwt.SigningMethodEdDSA, i.ed, "d", claims()))
		_, err = tokens(r)
		assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(want), path)
	}
	pol := policy("http://id.example/jwks")
	pol.Insecure = true
	_, err := auth.JWT(pol)
	assert.NoError(t, err)
}
