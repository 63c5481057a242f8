package httpbridge_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/internal/identity"
)

func edgeKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

// named takes the Authorization for a name.
func named(r *http.Request) (context.Context, error) {
	name := r.Header.Get("Authorization")
	if name == "" {
		return r.Context(), nil
	}
	return httpbridge.Identify(r.Context(), &httpbridge.Identity{Subject: name, Scopes: []string{"x"}}), nil
}

// TestWithIdentity signs for each call who was authenticated; nobody else sets the header.
func TestWithIdentity(t *testing.T) {
	m := newMux(t)
	got := make(chan []string, 1)
	serve(t, m, "svc.who", endpoint.New(func(ctx context.Context, _ *nothing) (*nothing, error) {
		c := endpoint.FromContext(ctx)
		got <- c.Header.Values("Postbus-Identity")
		c.Reply.Set("Postbus-Identity", "x")
		return &nothing{}, nil
	}))
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithHeaders([]string{"*", "Postbus*"}, []string{"*"}),
		httpbridge.WithAuth(named), httpbridge.WithIdentity("edge-1", edgeKey()))
	v, err := identity.NewVerifier(0, edgeKey().Public().(ed25519.PublicKey))
	assert.NoError(t, err)
	forged := []string{"Postbus-Identity", "a.b.c", "postbus-identity", "d", "POSTBUS-IDENTITY", "e", "Postbus-Other", "f"}

	r := s.post(t, "/svc/who", `{}`, append(forged, "Authorization", "ann")...)
	assert.Equal(t, r.status, 200)
	assert.Equal(t, r.header.Values("Postbus-Identity"), nil)
	values := <-got
	assert.Equal(t, len(values), 1)
	who, err := v.Verify(values[0], "svc.who", time.Now())
	assert.NoError(t, err)
	assert.Equal(t, *who, httpbridge.Identity{Subject: "ann", Scopes: []string{"x"}, Bridge: "edge-1"})

	assert.Equal(t, s.post(t, "/svc/who", `{}`, forged...).status, 200)
	assert.Equal(t, <-got, nil, "nobody is nobody")
}

func TestWithIdentity_faults(t *testing.T) {
	open := httpbridge.WithAuth(named)
	assert.Contains(t, httpbridge.New(newMux(t), open, httpbridge.WithIdentity("", nil)).Err().Error(), "WithIdentity", "no name")
	assert.Contains(t, httpbridge.New(newMux(t), open, httpbridge.WithIdentity("x", nil)).Err().Error(), "64 bytes")
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithIdentity("x", edgeKey())).Err().Error(), "WithAuth")
	twice := httpbridge.New(newMux(t), open, httpbridge.WithIdentity("x", edgeKey()), httpbridge.WithIdentity("y", edgeKey()))
	assert.Contains(t, twice.Err().Error(), "twice")
	assert.Contains(t, httpbridge.New(newMux(t), httpbridge.WithHeaders([]string{"Postbus-Identity"}, nil)).Err().Error(), "never passes")
}

// TestWithIdentity_tooLarge refuses whoever has more scopes than fit: nothing is broken, so it is no 500.
func TestWithIdentity_tooLarge(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Expose("svc.*"), httpbridge.WithIdentity("x", edgeKey()),
		httpbridge.WithAuth(func(r *http.Request) (context.Context, error) {
			who := &httpbridge.Identity{Subject: "ann", Scopes: strings.Fields(strings.Repeat("a:scope ", 500))}
			if r.Header.Get("Authorization") != "" {
				who = &httpbridge.Identity{Claims: map[string]any{"c": func() {}}}
			}
			return httpbridge.Identify(r.Context(), who), nil
		}))
	assert.Equal(t, failed(t, s.post(t, "/svc/add", `{}`), 403, endpoint.PermissionDenied), "the identity is too large to be told to services")
	assert.Equal(t, failed(t, s.post(t, "/svc/add", `{}`, "Authorization", "x"), 500, endpoint.Internal), "", "what is no JSON is a bug")
}
