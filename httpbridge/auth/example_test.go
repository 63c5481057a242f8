package auth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/httpbridge/auth"
)

type number struct {
	N int `json:"n"`
}

// memory serves what can be read and written.
func memory() *endpoint.Mux {
	stored := 0
	m := endpoint.NewMux()
	_ = m.Serve("memory.load", endpoint.New(func(context.Context, *nothing) (*number, error) { return &number{stored}, nil }))
	_ = m.Serve("memory.store", endpoint.New(func(_ context.Context, r *number) (*number, error) { stored = r.N; return r, nil }))
	return m
}

// curl prints status, body and challenge of a call.
func curl(h http.Handler, path, body string, header ...string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text, _ := io.ReadAll(w.Body)
	fmt.Println(w.Code, string(text))
	if c := w.Header().Get("WWW-Authenticate"); c != "" {
		fmt.Println("   ", c)
	}
}

func Example() {
	keys, err := auth.APIKeys(
		auth.Key{Subject: "reader", Hash: auth.HashKey("R3AD3R"), Scopes: []string{"memory:read"}},
		auth.Key{Subject: "writer", Hash: auth.HashKey("WR1T3R"), Scopes: []string{"memory:read", "memory:write"}})
	if err != nil {
		panic(err)
	}
	rules, err := auth.Rules(auth.Rule("memory.*", "memory:read"), auth.Rule("memory.store", "memory:write"))
	if err != nil {
		panic(err)
	}
	b := httpbridge.New(memory(), httpbridge.Expose("memory.*"), httpbridge.WithAuth(keys), httpbridge.WithAuthorization(rules))

	curl(b, "/memory/store", `{"n":7}`)
	curl(b, "/memory/store", `{"n":7}`, "X-API-Key", "R3AD3R")
	curl(b, "/memory/store", `{"n":7}`, "X-API-Key", "WR1T3R")
	curl(b, "/memory/load", `{}`, "Authorization", "ApiKey R3AD3R")
	// Output:
	// 401 {"code":"unauthenticated","message":"credentials are needed"}
	//     ApiKey realm="postbus"
	// 403 {"code":"permission_denied","message":"the scopes \"memory:read memory:write\" are needed"}
	//     Bearer realm="postbus", error="insufficient_scope", scope="memory:read memory:write"
	// 200 {"n":7}
	// 200 {"n":7}
}

// An API for programs with keys and for people with tokens. Nothing is fetched before the first token comes.
func ExampleJWT() {
	tokens, err := auth.JWT(auth.JWTPolicy{
		Issuer:     "https://id.example",
		Audience:   []string{"https://api.example"},
		Algorithms: []string{"ES256"},
		JWKS:       "https://id.example/.well-known/jwks.json",
		Claims:     []string{"tenant"}, // services are told
	})
	if err != nil {
		panic(err)
	}
	keys, err := auth.APIKeys(auth.Key{Subject: "batch", Hash: auth.HashKey("B4TCH")})
	if err != nil {
		panic(err)
	}
	b := httpbridge.New(memory(), httpbridge.Expose("memory.load"), httpbridge.WithAuth(auth.Any(tokens, keys)))

	curl(b, "/memory/load", `{}`, "Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.")
	curl(b, "/memory/load", `{}`, "X-API-Key", "B4TCH")
	// Output:
	// 401 {"code":"unauthenticated","message":"the token's signature or algorithm is not valid"}
	//     Bearer realm="postbus", error="invalid_token", error_description="the token's signature or algorithm is not valid"
	// 200 {"n":0}
}

// Whoever takes HS256 shares a secret with the issuer, and could sign tokens; whoever takes what a token names itself is
// told by it what to believe. Neither can be configured.
func ExampleJWT_incorrect() {
	_, err := auth.JWT(auth.JWTPolicy{
		Issuer: "https://id.example", Audience: []string{"https://api.example"},
		Algorithms: []string{"HS256", "none"}, JWKS: "http://id.example/jwks.json",
	})
	fmt.Println(err)
	// Output:
	// auth: JWT: HS256 is signed with what verifies it: whoever verifies could sign
	// auth: JWT: algorithm "none" is none of [RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA]
}

func ExampleNewKey() {
	key, hash := auth.NewKey()
	fmt.Println(len(key), "letters for the client,", len(hash), "for the list; equal:", auth.HashKey(key) == hash)
	// Output: 26 letters for the client, 64 for the list; equal: true
}
