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
//	                     side    streams                                      cost
//	Recover              both    all kinds                                    0
//	Log                  both    all kinds, one line at the end               0 when the level is off
//	Timeout              both    pass through: a stream has no total time     1, or 0 when the context is tighter
//	Authenticate         server  all kinds, when opened                       0 besides its function
//	VerifyIdentity       server  all kinds, when opened                       2; more for an identity not seen lately
//	Validate             both    each item of a request stream                0; decodes where the type has the method
//	ValidateWith         both    each item of a request stream                0; decodes always
//	RateLimit            both    all kinds, counts the stream once            0
//	RateLimitBy          both    all kinds, counts the stream once            0; 1 for a new key
//	RateLimitWait        both    all kinds, waits once                        0; a timer when it waits
//	Concurrency          both    all kinds, for their whole life              0
//	AdaptiveConcurrency  server  all kinds, for their whole life              0
//	Throttle             client  all kinds, counts the stream once            0
//	Retry                client  until the first item passed, either way      0; 1 for idempotent calls; 1 for headers
//	Hedge                client  pass through: idempotent unary calls only    0; some 20 for a call that can be hedged
//	Breaker              both    all kinds, by their end; not gathers         0
//	Coalesce             both    pass through: read-only unary calls only     12, and a goroutine
//	Cache                both    pass through: read-only unary calls only     0 for a hit; else Coalesce's and a copy
//	Fallback             client  until the first item passed, either way      0
//	Forward              server  all kinds                                    0
//	Fault                both    all kinds, when opened; with After, at end   0
//	FromKit              both    all kinds; request or response may be nil    1, and a real context on the client's side
//	metrics.New          both    all kinds, counted once at the end           0; 2 for a failure at the server
//	tracing.New          both    all kinds, the span ends with the stream     at most 5 unsampled
//
// [Server] and [Client] make stacks of them, in the order below. metrics and tracing are packages of their own, since they bring
// Prometheus and OpenTelemetry along.
//
// Every value is safe for concurrent use. A policy is a struct whose zero value is the good default. State belongs to the
// middleware value: make one, use it many times, and what it limits is limited together; what is derived for an endpoint is
// made at its first call.
//
// # The order
//
// The first middleware is the outermost. What works:
//
//	server:  Recover → metrics → tracing → Log → Timeout → AdaptiveConcurrency → VerifyIdentity, Authenticate → Concurrency
//	         → RateLimit(By) → Cache, Coalesce → Validate → Forward, Fault → handler
//	client:  metrics → tracing → Log → Fallback → Cache → Coalesce → Timeout → Throttle → Retry, Hedge → RateLimit(Wait)
//	         → Breaker → tracing of the attempt → Fault → transport
//
// docs/middleware.md says why. Recover is outermost so that all others see an error instead of a panic. On the client
// a Timeout outside of Retry bounds the whole call; inside it bounds each attempt, as AttemptTimeout does. A RateLimit
// inside of Retry counts attempts, outside it counts calls; a limiter's verdict is never retried, and stands outside of the
// Breaker, which it must not open. Forward stands innermost, next to the handler whose errors it lets pass, or outermost for
// all.
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
//	Client(Defaults{Retry: …, Hedge: …})                Retry and Hedge by hand in one chain (the inner passes through)
//	Cache with Vary: what tells tenants apart           Cache with a key that leaves the tenant out
//
// # Faults
//
// Constructors never fail and never panic. A middleware made with faults (a nil limiter, a negative duration) refuses each
// call: invalid_argument on the client's side, internal on the server's, reason construction, never executed, the fault as its cause.
package middleware
