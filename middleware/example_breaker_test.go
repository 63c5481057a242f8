package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleBreaker() {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
		return nil, endpoint.Unavailable.New("the database is away")
	}))
	sum := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.Breaker(middleware.BreakerPolicy{
		OpenFor: time.Minute,
		OnStateChange: func(subject string, from, to middleware.BreakerState) {
			fmt.Println(subject, from, "->", to)
		},
	}))
	for range 8 {
		_, err := sum(context.Background(), &addRequest{A: 1, B: 2})
		if e, ok := errors.AsType[*endpoint.Error](err); ok {
			fmt.Println(err, e.Outcome(), e.RetryAfter.Round(time.Minute))
		}
	}
	// Output:
	// unavailable: the database is away executed 0s
	// unavailable: the database is away executed 0s
	// unavailable: the database is away executed 0s
	// unavailable: the database is away executed 0s
	// unavailable: the database is away executed 0s
	// svc.add closed -> open
	// unavailable: the database is away executed 0s
	// unavailable (breaker_open): the circuit breaker is open not_sent 1m0s
	// unavailable (breaker_open): the circuit breaker is open not_sent 1m0s
}

// A Breaker around Retry sees calls and not attempts: of a service that is away it needs six calls, three attempts each, to
// notice. Inside, it notices after two, and spares the service the rest.
func ExampleBreaker_incorrect() {
	for _, inside := range []bool{false, true} {
		attempts := 0
		away := func(context.Context, *endpoint.Call) (any, error) {
			attempts++
			return nil, endpoint.Unavailable.New("away").WithOutcome(endpoint.Executed)
		}
		order := []endpoint.Middleware{middleware.Breaker(middleware.BreakerPolicy{}), middleware.Retry(middleware.RetryPolicy{Backoff: 1})}
		if inside {
			order[0], order[1] = order[1], order[0]
		}
		call := caller(away, endpoint.Idempotent(), endpoint.With(order...))
		for range 10 {
			_, _ = call(context.Background(), &addRequest{})
		}
		fmt.Println("inside:", inside, "attempts:", attempts)
	}
	// Output:
	// inside: false attempts: 18
	// inside: true attempts: 6
}
