package middleware_test

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleRateLimitWait() {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add))
	every := 20 * time.Millisecond
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add", middleware.RateLimitWait(rate.NewLimiter(rate.Every(every), 1)))

	start := time.Now()
	for range 3 {
		_, _ = call(context.Background(), &addRequest{})
	}
	fmt.Println("two had to wait:", time.Since(start) >= 2*every)

	ctx, cancel := context.WithTimeout(context.Background(), every/4)
	defer cancel()
	_, err := call(ctx, &addRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err)) // its turn would come too late: it need not wait to hear that
	// Output:
	// two had to wait: true
	// resource_exhausted (local_limit): the rate limit is reached not_sent
}
