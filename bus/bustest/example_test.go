package bustest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
)

type (
	GreetRequest  struct{ Name string }
	GreetResponse struct{ Text string }
)

func greet(_ context.Context, r *GreetRequest) (*GreetResponse, error) {
	if r.Name == "" {
		return nil, endpoint.InvalidArgument.New("who are you?")
	}
	return &GreetResponse{"hello " + r.Name}, nil
}

// A test of a service over a real broker: what crosses the wire is what is tested. In a test of yours t is the test's own.
func Example() {
	test := func(t testing.TB) {
		t.Helper()
		b := bustest.New(t) // server and bus, gone with the test
		if err := b.Serve("svc.greet", endpoint.New(greet)); err != nil {
			t.Fatal(err)
		}
		call := endpoint.Caller[*GreetRequest, *GreetResponse](b, "svc.greet")
		resp, err := call(context.Background(), &GreetRequest{Name: "Ada"})
		fmt.Println(resp.Text, err)
		_, err = call(context.Background(), &GreetRequest{})
		fmt.Println(errors.Is(err, endpoint.InvalidArgument))
	}
	t := &fake{TB: new(testing.T)}
	test(t)
	t.end()
	// Output:
	// hello Ada <nil>
	// true
}
