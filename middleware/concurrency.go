package middleware

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// Concurrency lets at most n calls run at once through this middleware value, and refuses the rest at once: a bulkhead, so
// that what is slow or stuck does not take everything else along. Refused calls get resource_exhausted: on the server's side
// with reason backlog_full, outcome NotExecuted and a RetryAfter of 10 ms, which lets the caller's [Retry] try another
// instance, or this one a little later; on the client's side with reason local_limit and outcome NotSent, which
// Retry leaves to the caller.
//
// Streams of all kinds count for as long as they last. A call that panics, or ends its goroutine, makes room as any other
// does. All that one Concurrency value surrounds shares the n places, handlers and callers alike: given to a bus
// as a whole, a handler that calls takes two. An n below 1 is a fault: each call is refused. By default, without it, only
// handlers are bounded, each endpoint for itself: see endpoint.Concurrency, which lets calls wait for a place besides.
// It costs no allocation, refused or not.
func Concurrency(n int) endpoint.Middleware {
	if n < 1 {
		return broken("Concurrency", fmt.Errorf("%d calls at once are none", n))
	}
	b := &bulkhead{room: int64(n)}
	full := deny("too many calls run at once", endpoint.ReasonBacklogFull)
	full.server, full.client = full.server.WithRetryAfter(bulkheadAdvice), full.client.WithRetryAfter(bulkheadAdvice)
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if !b.enter() {
				return nil, full.of(c)
			}
			defer b.leave()
			return next(ctx, c)
		}
	}
}

// bulkheadAdvice is short: a place may be free at any moment. Retry adds its jitter.
const bulkheadAdvice = 10 * time.Millisecond

type bulkhead struct {
	room   int64
	inside atomic.Int64
}

// enter compares before it counts: to count first and take it back would refuse others meanwhile, for whom there is room.
func (b *bulkhead) enter() bool {
	for {
		n := b.inside.Load()
		if n >= b.room {
			return false
		}
		if b.inside.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *bulkhead) leave() { b.inside.Add(-1) }
