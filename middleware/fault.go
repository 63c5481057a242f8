package middleware

import (
	"errors"
	"fmt"
	"math"
	"reflect"

	"postbus.example/endpoint"
)

// broken is what a constructor returns that was given faults: it names them all.
func broken(name string, faults ...error) endpoint.Middleware {
	return endpoint.Faulty(fmt.Errorf("middleware.%s: %w", name, errors.Join(faults...)))
}

// absent reports whether an interface holds nothing, or a nil pointer or function.
func absent(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// find returns the first *endpoint.Error of a chain; a nil one, which somebody returned by mistake, is none.
func find(err error) (*endpoint.Error, bool) {
	e, ok := errors.AsType[*endpoint.Error](err)
	return e, ok && e != nil
}

// authored returns the error that a function of the application meant by err; false if it is of another type, whose code
// nobody chose. What wraps an *endpoint.Error is its cause.
func authored(err error) (*endpoint.Error, bool) {
	if e, ok := find(err); ok {
		if err != error(e) { //nolint:errorlint // whether something wraps e is the question
			e = e.WithCause(err)
		}
		return e, true
	}
	if code := endpoint.CodeOf(err); code != endpoint.Unknown && code != endpoint.OK {
		return code.Wrap(err, ""), true
	}
	return nil, false
}

// amount is a number of a policy, with its name.
type amount struct {
	name  string
	value float64
}

// belowZero returns a fault for each amount that is negative or not a number, nil if all are well.
func belowZero(amounts ...amount) (faults []error) {
	for _, a := range amounts {
		switch {
		case a.value < 0:
			faults = append(faults, fmt.Errorf("%s is negative", a.name))
		case math.IsNaN(a.value):
			faults = append(faults, fmt.Errorf("%s is not a number", a.name))
		}
	}
	return faults
}
