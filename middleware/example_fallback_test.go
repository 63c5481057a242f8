package middleware_test

import (
	"context"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleFallback() {
	mux := endpoint.NewMux() // nobody serves svc.price
	price := endpoint.Caller[*addRequest, *addResponse](mux, "svc.price",
		middleware.Fallback(func(_ context.Context, _ *endpoint.Call, err error) (any, error) {
			fmt.Println("instead of", err)
			return &addResponse{Sum: 100}, nil // the list price
		}))
	resp, err := price(context.Background(), &addRequest{})
	fmt.Println(resp.Sum, err)
	// Output:
	// instead of unavailable (no_responders): nobody serves svc.price
	// 100 <nil>
}

// Inside of Retry a Fallback makes each attempt succeed, so that there is never a second one: a service that was away for
// a moment gets no chance. Fallback comes first, then Retry.
func ExampleFallback_incorrect() {
	list := middleware.Fallback(func(context.Context, *endpoint.Call, error) (any, error) { return &addResponse{Sum: 100}, nil })
	again := middleware.Retry(middleware.RetryPolicy{Backoff: time.Millisecond})
	for _, order := range [][]endpoint.Middleware{{again, list}, {list, again}} {
		price := endpoint.Caller[*addRequest, *addResponse](flaky(1), "svc.add", endpoint.Idempotent(), endpoint.With(order...))
		resp, err := price(context.Background(), &addRequest{A: 42})
		fmt.Println(resp.Sum, err)
	}
	// Output:
	// 100 <nil>
	// 42 <nil>
}
