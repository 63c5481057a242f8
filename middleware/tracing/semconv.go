package tracing

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
)

// The names of the conventions stand here, as our own constants, and nowhere else. OpenTelemetry's package of them has
// its version in its import path and a new one with each release, so every program that follows it compiles one
// more of them; and its RPC part is a release candidate whose names still change (drafts call the status code
// rpc.status_code). A test compares ours with the package of the version below.
const (
	schemaURL = "https://opentelemetry.io/schemas/1.43.0"
	scopeName = "postbus.example/middleware/tracing"

	systemName  = "postbus" // https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans
	otherMethod = "_OTHER"
	attemptTail = " attempt" // the span of an attempt is named after its call

	keySystem    = attribute.Key("rpc.system.name")
	keyMethod    = attribute.Key("rpc.method")
	keyStatus    = attribute.Key("rpc.response.status_code")
	keyErrorType = attribute.Key("error.type")

	keyOutcome   = attribute.Key("postbus.outcome")
	keyReason    = attribute.Key("postbus.reason")
	keyInstance  = attribute.Key("postbus.instance")
	keyAttempt   = attribute.Key("postbus.attempt")
	keyQueueWait = attribute.Key("postbus.queue.wait") // in seconds
)

// The headers of W3C, as https://www.w3.org/TR/trace-context and https://www.w3.org/TR/baggage spell them.
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
	baggageName = "baggage"
)

// method is the name of an operation for people and machines. It is made of what was registered, never of the wire.
func method(s *endpoint.Spec) string {
	switch {
	case s.Name == "":
		return otherMethod
	case s.Service == "":
		return s.Name
	}
	return s.Service + "/" + s.Name
}

func kind(s endpoint.Side) trace.SpanKind {
	if s == endpoint.ServerSide {
		return trace.SpanKindServer
	}
	return trace.SpanKindClient
}

// failed tells which codes make a span one of an error: to a caller all do, to a service those that are its own fault.
func failed(s endpoint.Side, c endpoint.Code) bool {
	if s == endpoint.ClientSide {
		return c != endpoint.OK
	}
	switch c {
	case endpoint.Unknown, endpoint.DeadlineExceeded, endpoint.Unimplemented, endpoint.Internal, endpoint.Unavailable, endpoint.DataLoss:
		return true
	default:
		return false
	}
}
