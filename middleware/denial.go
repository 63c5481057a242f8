package middleware

import (
	"fmt"
	"math"
	"time"

	"postbus.example/endpoint"
)

// denial is the verdict of a limiter, once for each side.
type denial struct{ server, client *endpoint.Error }

// deny makes a limiter's verdict. The client's reason is always local_limit: what this process itself refuses is not
// tried again.
func deny(message, reason string) denial {
	e := endpoint.ResourceExhausted.New(message)
	return denial{
		server: e.WithReason(reason).WithOutcome(endpoint.NotExecuted),
		client: e.WithReason(endpoint.ReasonLocalLimit).WithOutcome(endpoint.NotSent),
	}
}

// of returns the verdict for one call.
func (d denial) of(c *endpoint.Call) *endpoint.Error {
	if c.Side == endpoint.ServerSide {
		return d.server
	}
	return d.client
}

// after returns it with an advice. It allocates, which of does not.
func (d denial) after(c *endpoint.Call, wait time.Duration) *endpoint.Error {
	return d.of(c).WithRetryAfter(wait)
}

// unmade is the outcome of a call that a middleware ends before it calls next.
func unmade(c *endpoint.Call) endpoint.Outcome {
	if c.Side == endpoint.ServerSide {
		return endpoint.NotExecuted
	}
	return endpoint.NotSent
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
