package auth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
	"postbus.example/internal/assert"
)

func TestAPIKeys(t *testing.T) {
	key, hash := auth.NewKey()
	next, nextHash := auth.NewKey()
	gone, goneHash := auth.NewKey()
	keys, err := auth.APIKeys(
		auth.Key{Subject: "ann", Hash: hash, Scopes: []string{"read"}},
		auth.Key{Subject: "ann", Hash: strings.ToUpper(nextHash), Expires: time.Now().Add(time.Hour)},
		auth.Key{Subject: "bob", Hash: goneHash, Expires: time.Now().Add(-time.Second)})
	assert.NoError(t, err)
	s := start(t, httpbridge.WithAuth(keys))

	for _, kv := range [][]string{{"X-API-Key", key}, {"x-api-key", " " + key}, {"Authorization", "ApiKey " + key}, {"Authorization", "apikey  " + key}} {
		who := s.in(t, s.post(t, "/svc/read", kv...))
		assert.Equal(t, *who, auth.Identity{Subject: "ann", Scopes: []string{"read"}})
	}
	assert.Equal(t, s.in(t, s.post(t, "/svc/read", "X-API-Key", next)).Subject, "ann", "rotation: both are good")

	for _, kv := range [][]string{{}, {"Authorization", "ApiKey"}, {"Authorization", "Bearer " + key}, {"Authorization", key}, {"X-API-Key", ""}, {"Cookie", "X-API-Key=" + key}} {
		r := s.post(t, "/svc/read", kv...)
		assert.Equal(t, s.out(t, r, 401, fmt.Sprint(kv)), "credentials are needed")
		assert.Equal(t, r.header.Values("WWW-Authenticate"), []string{`ApiKey realm="postbus"`})
	}
	for _, bad := range []string{"x", hash, key[1:], key + "x", strings.ToLower(key)} {
		r := s.post(t, "/svc/read", "X-API-Key", bad)
		assert.Equal(t, s.out(t, r, 401, bad), "the API key is not known")
		assert.Contains(t, r.header.Get("WWW-Authenticate"), `ApiKey realm="postbus"`, `error="invalid_token"`)
		assert.True(t, !strings.Contains(r.body, bad) || len(bad) == 1)
	}
	assert.Equal(t, s.out(t, s.post(t, "/svc/read", "X-API-Key", gone), 401), "the API key has expired")
	for _, kv := range [][]string{{"X-API-Key", key, "X-API-Key", key}, {"X-API-Key", key, "Authorization", "ApiKey " + key}, {"Authorization", "ApiKey " + key, "Authorization", "ApiKey x"}} {
		assert.Contains(t, s.out(t, s.post(t, "/svc/read", kv...), 400), "more than once")
	}
}

func TestAPIKeys_faults(t *testing.T) {
	_, hash := auth.NewKey()
	_, err := auth.APIKeys(auth.Key{Subject: "a", Hash: hash}, auth.Key{Subject: "b", Hash: hash}, auth.Key{Hash: auth.HashKey("x")},
		auth.Key{Subject: "c", Hash: "beef"}, auth.Key{Subject: "d", Hash: strings.Repeat("z", 64)}, auth.Key{Subject: "e", Hash: auth.HashKey("y") + "00"})
	assert.Contains(t, err.Error(), `"a" and "b" are the same`, "belongs to nobody", `key of "c"`, `key of "d"`, `key of "e"`)
	_, err = auth.APIKeys()
	assert.Contains(t, err.Error(), "no API key")
}

func TestAPIKeyFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.txt")
		write := func(text string) { assert.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
		write("# who hash scopes\n\n  ann " + auth.HashKey("one") + " read write\nbob\t" + auth.HashKey("two") + " until=2000-01-31T00:00:00Z read\n")
		var log strings.Builder
		keys, err := auth.APIKeyFileLog(path, slog.New(slog.NewTextHandler(&log, nil)))
		assert.NoError(t, err)
		ask := func(key string) error {
			r := &http.Request{Header: http.Header{"X-Api-Key": {key}}}
			ctx, err := keys(r)
			if err == nil && !httpbridge.IdentityFrom(ctx).Allows("read") {
				t.Error("the scopes are lost")
			}
			return err
		}
		assert.NoError(t, ask("one"))
		assert.NoError(t, ask("two"), "the bubble's clock stands at the start of 2000")
		time.Sleep(31 * 24 * time.Hour)
		assert.ErrorIs(t, ask("two"), endpoint.Unauthenticated)

		write("eve " + auth.HashKey("three") + " read\n")
		assert.ErrorIs(t, ask("three"), endpoint.Unauthenticated, "it is not looked at all the time")
		time.Sleep(5 * time.Second)
		assert.NoError(t, ask("three"))
		assert.ErrorIs(t, ask("one"), endpoint.Unauthenticated)

		write("# " + auth.HashKey("three") + "\n")
		time.Sleep(5 * time.Second)
		assert.ErrorIs(t, ask("three"), endpoint.Unauthenticated, "the last key was taken out")
		assert.Contains(t, log.String(), "level=WARN", "has no key any more")
		write("eve " + auth.HashKey("three") + " read\n")
		time.Sleep(5 * time.Second)
		assert.NoError(t, ask("three"))

		write("nonsense\n")
		time.Sleep(5 * time.Second)
		assert.NoError(t, ask("three"), "what was good stays so")
		assert.Contains(t, log.String(), "level=ERROR", "can't be read again", "line 1")
		assert.NoError(t, os.Remove(path))
		time.Sleep(5 * time.Second)
		assert.NoError(t, ask("three"))
	})
}

func TestAPIKeyFile_faults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.txt")
	_, err := auth.APIKeyFile(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
	for text, want := range map[string][]string{
		"":                              {"keys.txt", "no API key"},
		"# none\n":                      {"no API key"},
		"ann\n\nbob x until=tomorrow\n": {"keys.txt", "line 1", "line 3", "RFC 3339"},
		"\nann " + auth.HashKey("x") + " read # was admin\n": {"line 2", "a comment needs a line of its own"},
		"ann " + auth.HashKey("x") + " #admin\n":             {"line 1", "a comment needs a line of its own"},
		"ann " + auth.HashKey("x") + " read,\"write\"\n":     {"line 1", "is no scope"},
		"ann " + auth.HashKey("x") + " größe\n":              {"line 1", "is no scope"},
		"ann beef\n":                     {`"ann"`, "SHA-256"},
		strings.Repeat("#", 1<<20) + "x": {"at most"},
	} {
		assert.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := auth.APIKeyFile(path)
		assert.Contains(t, fmt.Sprint(err), want...)
	}
}
