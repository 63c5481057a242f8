// Package middleware wraps calls: each function here takes a policy and returns an [endpoint.Middleware], which acts on
// handlers, on callers, or on both, for unary calls and streams alike.
//
//	ep := endpoint.New(add, middleware.RateLimit(rate.NewLimiter(1000, 100)))
//	sum := endpoint.Caller[*AddRequest, *AddResponse](bus, "svc.add", endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}))
//
// # What each one does
//
// Costs are those of a call that goes well, in allocations.
//
//	             side    streams                                      cost
//	Recover      both    all kinds                                    0
//	Log          both    all kinds, one line at the end               0 when the level is off
//	Timeout      both    pass through: a stream has no total time     2, or 0 when the context is tighter
//	RateLimit    both    all kinds, counts the stream once            0
//	Retry        client  until the first item passed, either way      0; 2 for idempotent calls; 1 for headers
//	Forward      server  all kinds                                    0
//	FromKit      both    all kinds; request or response may be nil    1, and a real context on the client's side
//
// Every value is safe for concurrent use. A policy is a struct whose zero value is the good default. State belongs to the
// middleware value: make one, use it many times, and what it limits is limited together; what is derived for an endpoint is
// made at its first call.
//
// # The order
//
// The first middleware is the outermost. What works:
//
//	server:  Recover → Log → Timeout → RateLimit → handler
//	client:  Log → Timeout → Retry → RateLimit → transport
//
// Recover is outermost so that nothing escapes it; Log stands right inside, and logs a panic on its way out. On the client
// a Timeout outside of Retry bounds the whole call; inside it bounds each attempt, as AttemptTimeout does. A RateLimit
// inside of Retry counts attempts, outside it counts calls; a limiter's verdict is never retried. Forward
// stands innermost, next to the handler whose errors it lets pass, or outermost for all.
//
// # Do and don't
//
//	do                                                  don't
//	one Retry at the edge of each process               Retry around Retry (the inner one passes through)
//	declare what is idempotent: endpoint.Idempotent()   hope that a failed write did not happen
//	share one Budget among callers of one service       Attempts: 10
//	endpoint.Timeout(d) for one operation: it is free   a Timeout longer than the caller's deadline
//	a RateLimit for each thing that is scarce           one limiter in front of everything
//	Forward() in a proxy or gateway                     Forward() where the upstream's words are nobody's business
//
// # Faults
//
// Constructors never fail and never panic. A middleware made with faults (a nil limiter, a negative duration) refuses each
// call: invalid_argument on the client's side, internal on the server's, reason construction, never executed, the fault as its cause.
package middleware
