package middleware_test

import (
	"context"
	"errors"
	"fmt"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

type order struct {
	Item    string
	Pieces  int
	Address *address
}

func (o *order) Validate() error {
	if o.Pieces < 1 {
		return fmt.Errorf("pieces: %d is less than 1", o.Pieces)
	}
	return nil
}

type address struct{ City string }

func (a *address) Validate() error {
	if a == nil || a.City == "" {
		return errors.New("address: the city is missing")
	}
	return nil
}

type receipt struct{ Number int }

func placeOrder(context.Context, *order) (*receipt, error) { return &receipt{Number: 1}, nil }

func ExampleValidate() {
	mux := endpoint.NewMux()
	_ = mux.Serve("orders.place", endpoint.New(placeOrder, middleware.Validate()))

	call := endpoint.Caller[*order, *receipt](mux, "orders.place")
	_, err := call(context.Background(), &order{Item: "hat"})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output: invalid_argument: pieces: 0 is less than 1 not_executed
}

// The address has the method, too, but nobody calls it: a message has to ask its parts, with
// return o.Address.Validate() in this case.
func ExampleValidate_incorrect() {
	mux := endpoint.NewMux()
	_ = mux.Serve("orders.place", endpoint.New(placeOrder, middleware.Validate()))

	call := endpoint.Caller[*order, *receipt](mux, "orders.place")
	resp, err := call(context.Background(), &order{Item: "hat", Pieces: 1, Address: &address{}})
	fmt.Println("receipt", resp.Number, err)
	// Output: receipt 1 <nil>
}

func ExampleValidateWith() {
	// Any validator that takes a message will do: of protobuf rules, of struct tags.
	atMost := func(m any) error {
		if o, ok := m.(*order); ok && o.Pieces > 100 {
			return endpoint.OutOfRange.New("pieces: at most 100")
		}
		return nil
	}
	mux := endpoint.NewMux()
	_ = mux.Serve("orders.place", endpoint.New(placeOrder))

	call := endpoint.Caller[*order, *receipt](mux, "orders.place", middleware.ValidateWith(atMost))
	_, err := call(context.Background(), &order{Pieces: 101})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output: out_of_range: pieces: at most 100 not_sent
}
