// Package tracing gives each call a span: one definition for callers and handlers, for unary calls and streams.
//
//	b.Use(tracing.New(provider, nil)) // outermost, around every handler and caller of a bus or mux
//
// # What it does
//
//	client   a span of kind CLIENT around the call with all its attempts. Its parent is the span in the context or, without one,
//	         that of the traceparent the call is made with, which is how a bridge goes on with a browser's trace
//	attempt  where the same value stands again inside of a retry or hedge: a span of kind CLIENT around each attempt, named
//	         "service/Name attempt", a child of the call's
//	server   a span of kind SERVER around the handler, a child of what the request came with. The handler's context has the
//	         span and the baggage, so that calls made with it go on with the trace
//
// The span of a stream ends when the stream does; no items are recorded. A panic passes through, and ends the span as
// internal, reason panic.
//
// # What a span has
//
// Names are those of OpenTelemetry's RPC conventions (schema 1.43.0), and postbus.… where they have none:
//
//	(name), rpc.method          service/Name, as served or called: never what the wire says
//	rpc.system.name             postbus
//	rpc.response.status_code    ok, not_found: the code, on the server's side as the peer is told
//	error.type                  the code, if it makes the span one of an error
//	postbus.outcome             of failures: not_sent, not_executed, maybe_executed, executed
//	postbus.reason              of failures that have one: no_responders, draining
//	postbus.instance            who served the call, if known
//	postbus.attempt             of attempts, 0 for the first; elsewhere if it is not the first
//	postbus.queue.wait          server: seconds from the request's arrival to the span's beginning
//
// The status is Error, without a description, for every failure on the client's side, and on the server's for those that are
// its own fault: unknown, deadline_exceeded, unimplemented, internal, unavailable and data_loss. Payloads, header values,
// messages and causes are in no span.
//
// # What travels
//
// A traceparent goes by the call ([endpoint.Call.SetTrace]); the bus has room for an unsampled one in the reply token, so
// that it costs no header. The tracestate is a header, of sampled contexts only. The baggage is a header whenever there is
// one, and whatever else a propagator writes is, too. What leaves no room for other headers is not sent.
//
// What comes over the wire is not trusted to be well-formed: a traceparent that can't be read, or is repeated, is none; so is
// what can't be read of tracestate and baggage. Whether it is trusted at all is for [Untrusted] to say.
//
// # Once or twice
//
// Once, outermost, is enough. A second time, around the attempts of a caller that retries, shows each attempt and lets the
// service's spans hang below their own. It must be the same value, since that is how it knows the call
// again; another value would trace a call of its own. A third time, or twice without a retry in between, adds spans that say
// nothing new; around a handler, once counts.
//
// # Cost
//
// An unsampled call costs at most 5 allocations and less than half a microsecond on each side: the provider's span and context
// take 3 of them, for the sampler is asked about each call. It has the two attributes that samplers may ask for and no others, and its
// attempts have no spans. Without a provider it is at most 2. That holds for W3C's propagators; others are asked for each
// header that they may have.
package tracing
