package tracing

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
)

// errPanicked is what a span ends with that a panic or runtime.Goexit passes through. What panicked may be a secret.
var errPanicked = endpoint.Internal.New("").WithReason(endpoint.ReasonPanic)

// run calls on and ends the span, whatever comes back. A panic goes on as it is. End is not deferred itself: the SDK's would
// then find the panic, and tell its message to the whole world.
func (h *handler) run(ctx context.Context, c *endpoint.Call, span trace.Span) (reply any, err error) {
	err = errPanicked // until next returned
	defer func() { end(span, c, err) }()
	reply, err = h.next(ctx, c)
	return reply, err
}

// end ends a span.
func end(span trace.Span, c *endpoint.Call, err error) {
	describe(span, c, err)
	span.End()
}

// run is the handler's run of a caller's call, whose scope has all that is kept while it waits.
func (s *scope) run(next endpoint.Handler) (reply any, err error) {
	err = errPanicked
	defer func() { end(s.span, s.call, err) }()
	reply, err = next(s, s.call)
	return reply, err
}

// describe says how the call ended. A span that is not recorded pays for nothing of it.
func describe(span trace.Span, c *endpoint.Call, err error) {
	if !span.IsRecording() {
		return
	}
	var room [6]attribute.KeyValue
	attrs := room[:0]
	if id := c.Instance(); id != "" {
		attrs = append(attrs, keyInstance.String(id))
	}
	if c.Attempt > 0 {
		attrs = append(attrs, keyAttempt.Int(c.Attempt))
	}
	if err == nil {
		span.SetAttributes(append(attrs, keyStatus.String(endpoint.OK.String()))...)
		return
	}
	code, outcome := verdict(c, err)
	attrs = append(attrs, keyStatus.String(code.String()), keyOutcome.String(outcome.String()))
	if e, ok := errors.AsType[*endpoint.Error](err); ok && e != nil && e.Reason() != "" {
		attrs = append(attrs, keyReason.String(e.Reason()))
	}
	if failed(c.Side, code) {
		attrs = append(attrs, keyErrorType.String(code.String()))
		span.SetStatus(codes.Error, "") // the code says it; a message is for the peer, and a cause for the log
	}
	span.SetAttributes(attrs...)
}

// verdict is how a call ended: at the service as the peer is told. An error with a code that is none is unknown.
func verdict(c *endpoint.Call, err error) (endpoint.Code, endpoint.Outcome) {
	if c.Side == endpoint.ServerSide {
		told := c.Verdict(err)
		return told.Code, told.Outcome()
	}
	code := endpoint.CodeOf(err)
	if _, ok := endpoint.ParseCode(code.String()); !ok || code == endpoint.OK {
		code = endpoint.Unknown
	}
	return code, endpoint.OutcomeOf(err)
}
