package middleware_test

import (
	"context"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// greeter serves svc.greet, which greets by the header user, behind a cache, and counts.
func greeter(policy middleware.CachePolicy) (call endpoint.Unary[*addRequest, *greeting], made *int) {
	made = new(int)
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.greet", endpoint.New(func(ctx context.Context, _ *addRequest) (*greeting, error) {
		*made++
		return &greeting{Text: "hello " + endpoint.FromContext(ctx).Header.Get("user")}, nil
	}, endpoint.ReadOnly(), middleware.Cache(policy)))
	return endpoint.Caller[*addRequest, *greeting](mux, "svc.greet"), made
}

func ExampleCache() {
	call, made := greeter(middleware.CachePolicy{TTL: time.Minute})
	for _, user := range []string{"alice", "bob", "alice"} {
		resp, err := call(endpoint.WithHeader(context.Background(), "user", user), &addRequest{})
		fmt.Println(resp.Text, err)
	}
	fmt.Println("made:", *made)
	// Output:
	// hello alice <nil>
	// hello bob <nil>
	// hello alice <nil>
	// made: 2
}

// Vary is for leaving out headers that the reply does not depend on, such as a request id, and keeps those it names. This
// one has forgotten who asks.
func ExampleCache_incorrect() {
	call, _ := greeter(middleware.CachePolicy{TTL: time.Minute, Vary: []string{"Accept-Language"}})
	for _, user := range []string{"alice", "bob"} {
		resp, err := call(endpoint.WithHeader(context.Background(), "user", user), &addRequest{})
		fmt.Println(user, "gets:", resp.Text, err)
	}
	// Output:
	// alice gets: hello alice <nil>
	// bob gets: hello alice <nil>
}

// A service says itself how long its replies hold, in their metadata.
func ExampleCache_control() {
	made := 0
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.draw", endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
		made++
		endpoint.FromContext(ctx).Reply.Set("Cache-Control", "no-store")
		return &addResponse{Sum: made}, nil
	}, endpoint.ReadOnly()))
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.draw", endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{TTL: time.Minute}))
	for range 2 {
		resp, _ := call(context.Background(), &addRequest{})
		fmt.Println(resp.Sum)
	}
	// Output:
	// 1
	// 2
}
