package middleware_test

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleRateLimitBy() {
	byTenant := func(_ context.Context, c *endpoint.Call) string { return c.Header.Get("Tenant") }
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add, middleware.RateLimitBy(byTenant, middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1})))

	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	for _, tenant := range []string{"red", "red", "blue"} {
		_, err := call(endpoint.WithHeader(context.Background(), "Tenant", tenant), &addRequest{})
		fmt.Println(tenant, err)
	}
	// Output:
	// red <nil>
	// red resource_exhausted (rate_limited): the rate limit is reached
	// blue <nil>
}

// A caller can write into a header what it likes, and with a new name for each call it has a new bucket for each call. Take
// the key from what was proved: what an authentication outside of the limit put into the context.
func ExampleRateLimitBy_incorrect() {
	byName := func(_ context.Context, c *endpoint.Call) string { return c.Header.Get("Name") }
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add, middleware.RateLimitBy(byName, middleware.RatePolicy{Limit: rate.Every(time.Hour), Burst: 1})))

	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	passed := 0
	for i := range 10 {
		if _, err := call(endpoint.WithHeader(context.Background(), "Name", fmt.Sprint("somebody ", i)), &addRequest{}); err == nil {
			passed++
		}
	}
	fmt.Println("meant to get 1 call an hour, and got", passed)
	// Output: meant to get 1 call an hour, and got 10
}
