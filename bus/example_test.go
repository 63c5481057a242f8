package bus_test

import (
	"context"
	"errors"
	"fmt"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

// The whole of a service and its caller. The broker runs in this process here; bus.Connect takes the URL of any other.
func Example() {
	srv, err := embedded.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()
	b, err := bus.Connect(srv.URL(), bus.WithVersion("1.4.0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	if err := b.Serve("svc.add", endpoint.New(add, endpoint.Doc("adds two numbers"))); err != nil {
		fmt.Println(err)
		return
	}

	sum := endpoint.Caller[*AddRequest, *AddResponse](b, "svc.add")
	resp, err := sum(context.Background(), &AddRequest{A: 1, B: 2})
	fmt.Println(resp.Sum, err)
	_, err = sum(context.Background(), &AddRequest{A: 1, B: 13})
	fmt.Println(err, errors.Is(err, endpoint.FailedPrecondition))
	_, err = endpoint.Caller[*AddRequest, *AddResponse](b, "svc.nobody")(context.Background(), &AddRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output:
	// 3 <nil>
	// failed_precondition: 13 is unlucky true
	// unavailable (no_responders): nobody serves svc.nobody not_executed
}

// Drain is how a service leaves: what it has taken is answered, what comes next goes to the others.
func ExampleBus_Drain() {
	srv, err := embedded.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Shutdown()
	b, err := bus.Connect(srv.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Serve("svc.add", endpoint.New(add)); err != nil {
		fmt.Println(err)
	}
	fmt.Println(b.Drain(context.Background()))
	fmt.Println(errors.Is(b.Serve("svc.add", endpoint.New(add)), endpoint.Unavailable))
	// Output:
	// <nil>
	// true
}
