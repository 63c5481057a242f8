// Package stringsvc is Go kit's other classic, as two services that call each other: uppercase asks count whether there is
// anything to do, and count asks uppercase to tell letters apart whatever their case.
package stringsvc

import (
	"errors"

	"postbus.example/endpoint"
)

// Text is what both services are asked about.
type Text struct{ S string }

// Number is an answer.
type Number struct{ N int }

// Uppercase is a contract.
type Uppercase struct {
	Uppercase endpoint.Unary[*Text, *Text] `rpc:"uppercase,readonly" doc:"writes a text in capitals"`
}

// Count is another.
type Count struct {
	Count    endpoint.Unary[*Text, *Number] `rpc:"count,readonly" doc:"counts the letters of a text"`
	Distinct endpoint.Unary[*Text, *Number] `rpc:"distinct,readonly" doc:"counts the letters that differ in more than case"`
}

// ErrEmpty is what Uppercase says of nothing.
var ErrEmpty = errors.New("the text is empty")

// Options declares the error for both sides.
func (Uppercase) Options(string) []endpoint.Option {
	return []endpoint.Option{endpoint.ErrorValue("stringsvc.empty", endpoint.InvalidArgument, ErrEmpty)}
}
