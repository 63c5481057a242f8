package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// login finds out who calls, by a header, and puts the name into the context.
func login(ctx context.Context, c *endpoint.Call) (context.Context, error) {
	users := map[string]string{"Bearer 1": "alice", "Bearer 2": "bob"}
	user, ok := users[c.Header.Get("Authorization")]
	if !ok {
		return nil, errors.New("no such token") // for our log
	}
	return context.WithValue(ctx, loginKey{}, user), nil
}

type loginKey struct{}

func greet(ctx context.Context, _ *addRequest) (*greeting, error) {
	return &greeting{Text: fmt.Sprintf("hello %v", ctx.Value(loginKey{}))}, nil
}

func ExampleAuthenticate() {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.greet", endpoint.New(greet, middleware.Authenticate(login)))
	call := endpoint.Caller[*addRequest, *greeting](mux, "svc.greet")

	resp, err := call(endpoint.WithHeader(context.Background(), "Authorization", "Bearer 1"), &addRequest{})
	fmt.Println(resp.Text, err)
	_, err = call(context.Background(), &addRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output:
	// hello alice <nil>
	// unauthenticated not_executed
}

// A Cache that stands outside answers before Authenticate is asked. With the headers that tell users apart left out of
// its policy besides, a stranger is greeted as alice. Authenticate comes first.
func ExampleAuthenticate_incorrect() {
	mux := endpoint.NewMux()
	cache := middleware.Cache(middleware.CachePolicy{TTL: time.Minute, Vary: []string{}})
	_ = mux.Serve("svc.greet", endpoint.New(greet, endpoint.ReadOnly(), endpoint.With(cache, middleware.Authenticate(login))))
	call := endpoint.Caller[*addRequest, *greeting](mux, "svc.greet")

	_, _ = call(endpoint.WithHeader(context.Background(), "Authorization", "Bearer 1"), &addRequest{})
	resp, err := call(context.Background(), &addRequest{})
	fmt.Println(resp.Text, err)
	// Output: hello alice <nil>
}
