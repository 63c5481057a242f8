package middleware_test

import (
	"context"
	"fmt"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleConcurrency() {
	mux := endpoint.NewMux()
	inside, leave := make(chan struct{}), make(chan struct{})
	_ = mux.Serve("svc.report", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		inside <- struct{}{}
		<-leave
		return add(ctx, r)
	}, middleware.Concurrency(1)))

	report := endpoint.Caller[*addRequest, *addResponse](mux, "svc.report")
	done := make(chan error)
	go func() {
		_, err := report(context.Background(), &addRequest{})
		done <- err
	}()
	<-inside
	_, err := report(context.Background(), &addRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err))
	close(leave)
	fmt.Println(<-done)
	// Output:
	// resource_exhausted (backlog_full): too many calls run at once not_executed
	// <nil>
}

// One value around all handlers and all callers of a bus is one number for all of them: here the handler holds the only
// place, so its own call finds none. Make a value for each thing that is scarce, and say on which side it stands, by
// endpoint.OnServer or endpoint.OnClient.
func ExampleConcurrency_incorrect() {
	mux := endpoint.NewMux()
	mux.Use(middleware.Concurrency(1))
	_ = mux.Serve("svc.add", endpoint.New(add))
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")

	_, err := call(context.Background(), &addRequest{})
	fmt.Println(err)
	// Output: resource_exhausted (backlog_full): too many calls run at once
}
