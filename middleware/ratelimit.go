package middleware

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"postbus.example/endpoint"
)

// Limiter says whether a call may happen now. [*rate.Limiter] is one as it is. It must be safe for concurrent use.
//
// A Limiter may also have the method RetryAfter() time.Duration, which says after a refusal when to try again (0 says
// nothing). For a [*rate.Limiter] that follows from its tokens and its rate.
type Limiter interface {
	Allow() bool
}

// RateLimit refuses calls that its limiter does not allow: resource_exhausted, with a RetryAfter where the limiter knows
// one. On the server's side the reason is rate_limited and the outcome NotExecuted: the request is not even decoded. On the
// client's side the reason is local_limit and the outcome NotSent. [Retry] leaves both to the caller. Streams of all
// kinds count once, when they are opened.
//
// All that one RateLimit value surrounds shares its limiter. By default, without it, nothing is limited but the
// concurrency of each endpoint. A nil limiter is a fault: each call is refused.
func RateLimit(l Limiter) endpoint.Middleware {
	if absent(l) {
		return broken("RateLimit", errors.New("the limiter is nil"))
	}
	limited, hint := rateLimited(), retryAfter(l)
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if l.Allow() {
				return next(ctx, c)
			}
			return nil, limited.after(c, hint())
		}
	}
}

func rateLimited() denial { return deny("the rate limit is reached", endpoint.ReasonRateLimited) }

// leastWait is what a refusal says when the limiter has a token again by now.
const leastWait = time.Millisecond

// retryAfter finds out when a limiter will allow the next call. For a token bucket it is calculated; to reserve a token
// and cancel would also tell, but takes it from others meanwhile, and a canceled reservation does not come back whole.
func retryAfter(l Limiter) func() time.Duration {
	switch l := l.(type) {
	case interface{ RetryAfter() time.Duration }:
		return l.RetryAfter
	case interface {
		Tokens() float64
		Limit() rate.Limit
		Burst() int
	}:
		return func() time.Duration {
			if l.Burst() < 1 {
				return 0 // no token will ever come
			}
			return untilToken(l.Tokens(), l.Limit())
		}
	default:
		return func() time.Duration { return 0 }
	}
}

// untilToken returns how long a bucket takes to have a whole token, 0 if it never will.
func untilToken(tokens float64, limit rate.Limit) time.Duration {
	if limit <= 0 {
		return 0
	}
	wait := (1 - tokens) / float64(limit) * float64(time.Second)
	if wait >= float64(rate.InfDuration) {
		return 0
	}
	return max(time.Duration(wait), leastWait)
}
