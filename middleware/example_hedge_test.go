package middleware_test

import (
	"context"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleHedge() {
	mux := endpoint.NewMux()
	_ = mux.Serve("users.get", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if c := endpoint.FromContext(ctx); r.A == 1000 && c.Attempt == 0 { // this one meets a slow instance
			<-ctx.Done() // and is told that another attempt was quicker
			return nil, ctx.Err()
		}
		return add(ctx, r)
	}))
	get := endpoint.Caller[*addRequest, *addResponse](mux, "users.get", endpoint.Idempotent(), middleware.Hedge(middleware.HedgePolicy{
		MinDelay: 20 * time.Millisecond,
	}))
	for i := range 1000 { // it gets to know how long calls take
		_, _ = get(context.Background(), &addRequest{A: i})
	}
	ctx, report := endpoint.Observe(context.Background())
	_, err := get(ctx, &addRequest{A: 1000})
	fmt.Println(err, "attempts:", report.Attempts)
	// Output: <nil> attempts: 2
}

// A Hedge without endpoint.Idempotent() does nothing: whether a call may be run twice only its author knows. Neither does
// one inside of a Retry, or a Retry inside of it: the outermost takes charge.
func ExampleHedge_incorrect() {
	second := 0
	slow := func(ctx context.Context, c *endpoint.Call) (any, error) {
		if c.Attempt > 0 {
			second++
		}
		if c.Header.Len() > 0 {
			time.Sleep(30 * time.Millisecond)
		}
		return &addResponse{}, nil
	}
	hedge := middleware.Hedge(middleware.HedgePolicy{MinDelay: 10 * time.Millisecond})
	for _, opts := range [][]endpoint.Option{
		{hedge},
		{endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}), hedge},
	} {
		call := caller(slow, opts...)
		for range 1000 {
			_, _ = call(context.Background(), &addRequest{})
		}
		_, _ = call(endpoint.WithHeader(context.Background(), "slow", "yes"), &addRequest{})
	}
	fmt.Println("second attempts:", second)
	// Output: second attempts: 0
}
