package middleware_test

import (
	"context"
	"fmt"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// crowded serves an endpoint that has no room for anybody, and counts who asks.
func crowded() (mux *endpoint.Mux, asked *int) {
	mux, asked = endpoint.NewMux(), new(int)
	_ = mux.Serve("svc.add", endpoint.New(add, endpoint.With(func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) {
			*asked++
			return nil, endpoint.ResourceExhausted.New("full").WithReason(endpoint.ReasonBacklogFull).WithOutcome(endpoint.NotExecuted)
		}
	})))
	return mux, asked
}

func ExampleThrottle() {
	mux, asked := crowded()
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.Throttle(middleware.ThrottlePolicy{}))
	for range 1000 {
		_, _ = call(context.Background(), &addRequest{})
	}
	fmt.Println("of 1000 calls about a tenth went out:", *asked > 50 && *asked < 200)
	// Output: of 1000 calls about a tenth went out: true
}

// A Throttle knows what its own calls met. One that is made for each call has seen nothing yet; make it once, and give it
// to all callers.
func ExampleThrottle_incorrect() {
	mux, asked := crowded()
	for range 1000 {
		call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.Throttle(middleware.ThrottlePolicy{}))
		_, _ = call(context.Background(), &addRequest{})
	}
	fmt.Println("of 1000 calls went out:", *asked)
	// Output: of 1000 calls went out: 1000
}
