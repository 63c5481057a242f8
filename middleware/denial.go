package middleware

import (
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

// untouched is the outcome of a call that was refused before next: on this side of it nothing happened.
func untouched(c *endpoint.Call) endpoint.Outcome {
	if c.Side == endpoint.ServerSide {
		return endpoint.NotExecuted
	}
	return endpoint.NotSent
}
