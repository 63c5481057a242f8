package middleware_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

func ExampleFault() {
	var armed atomic.Bool // for a test, or behind an operator's switch
	chaos := middleware.Fault(middleware.FaultPolicy{Armed: armed.Load, ErrorShare: 1})
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add, chaos))
	sum := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")

	for _, on := range []bool{false, true} {
		armed.Store(on)
		_, err := sum(context.Background(), &addRequest{A: 1, B: 2})
		fmt.Println(err, endpoint.OutcomeOf(err))
	}
	// Output:
	// <nil> executed
	// unavailable (injected): a fault was injected not_executed
}

// Outside of Retry a fault is never tried again: it shows what callers make of it and says nothing about Retry. What stands
// for the network belongs innermost.
func ExampleFault_incorrect() {
	var n atomic.Int64
	firstCall := func() bool { return n.Add(1) == 1 }
	again := middleware.Retry(middleware.RetryPolicy{Backoff: time.Millisecond})
	for _, order := range []string{"fault, retry", "retry, fault"} {
		n.Store(0)
		chaos := middleware.Fault(middleware.FaultPolicy{Armed: firstCall, ErrorShare: 1})
		mws := []endpoint.Middleware{chaos, again}
		if order == "retry, fault" {
			mws = []endpoint.Middleware{again, chaos}
		}
		sum := endpoint.Caller[*addRequest, *addResponse](flaky(0), "svc.add", endpoint.With(mws...))
		_, err := sum(context.Background(), &addRequest{A: 1, B: 2})
		fmt.Println(order+":", err)
	}
	// Output:
	// fault, retry: unavailable (injected): a fault was injected
	// retry, fault: <nil>
}
