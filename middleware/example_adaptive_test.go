package middleware_test

import (
	"context"
	"fmt"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleAdaptiveConcurrency() {
	limit := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{
		Max:    100,
		Report: func(name, subject string, value float64) { fmt.Println(name, subject, value) },
	})
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add, limit))

	_, err := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{})
	fmt.Println(err)
	// Output:
	// adaptive_limit svc.add 100
	// <nil>
}

// Inside of what takes time, that time looks as if calls had waited in the queue: here it is spent on asking somebody who
// the caller is. The limit belongs outside of it.
func ExampleAdaptiveConcurrency_incorrect() {
	ask := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			time.Sleep(2 * time.Millisecond)
			return next(ctx, c)
		}
	}
	limit := middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{Target: time.Millisecond, Interval: 10 * time.Millisecond})
	inside, leave := make(chan struct{}), make(chan struct{})
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if r.A == 1 {
			inside <- struct{}{}
			<-leave
		}
		return add(ctx, r)
	}, endpoint.With(ask, limit)))

	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	done := make(chan error)
	go func() {
		_, err := call(context.Background(), &addRequest{A: 1})
		done <- err
	}()
	<-inside
	var err error
	for range 50 { // one after the other, so none has to wait
		_, err = call(context.Background(), &addRequest{})
	}
	fmt.Println(err)
	close(leave)
	<-done
	// Output: resource_exhausted (backlog_wait): the call waited too long
}
