package middleware

import "postbus.example/endpoint"

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

// untouched is the outcome of a call that was refused before next: on this side of it nothing happened.
func untouched(c *endpoint.Call) endpoint.Outcome {
	if c.Side == endpoint.ServerSide {
		return endpoint.NotExecuted
	}
	return endpoint.NotSent
}
