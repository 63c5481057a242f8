package tracing

import (
	"context"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"postbus.example/endpoint"
)

// mark tells whose context it is, so that a middleware value finds out that it stands around an attempt of that very call: the
// call itself, or a later attempt by the same caller. A call that a handler or a middleware makes with the context is another
// one, and traced as such.
type mark struct {
	of   *tracing
	call *endpoint.Call
}

func (m *mark) holds(c *endpoint.Call) bool {
	return c == m.call || c.Side == endpoint.ClientSide && c.Attempt > 0 && c.Spec == m.call.Spec
}

// scope is the context below the span of a caller's call: the call's own, with the values of the span's.
type scope struct {
	context.Context
	mark

	span   trace.Span // the caller's until it begins, see outset, and then its own
	values context.Context
}

// recorded reports whether its span is.
func (s *scope) recorded() bool { return s.span.IsRecording() }

// Bounds lets transports see through it, see endpoint.WithValues.
func (s *scope) Bounds() context.Context { return s.Context }

// Value finds itself by its middleware value, and otherwise what the span's context has.
func (s *scope) Value(key any) any {
	if key == any(s.of) {
		return s
	}
	return s.values.Value(key)
}

// outset is the context that the span of a call begins with, in the memory of its scope: the caller's, whose span has been looked
// up. Whoever begins a span asks for that several times, and the way down to it may be long.
type outset scope

// Value finds the span, and otherwise what the caller's context has.
func (o *outset) Value(key any) any {
	if key != nil && key == o.of.spanKey {
		return o.span
	}
	return o.Context.Value(key)
}

// arrival is the context that a handler's span begins with: it has the mark, and the trace that the request came with.
type arrival struct {
	context.Context
	mark

	came remote
}

// remote is the span of the peer, of which only its context is known.
type remote struct {
	*nothing

	sc trace.SpanContext
}

// nothing is a span that does nothing. All remote ones share it, behind one pointer.
type nothing struct{ noop.Span }

// SpanContext is all there is.
func (r *remote) SpanContext() trace.SpanContext { return r.sc }

// Value finds itself by its middleware value, the peer's span if there is one, and otherwise what the context has.
func (a *arrival) Value(key any) any {
	switch {
	case key == any(a.of):
		return a
	case a.came.nothing != nil && key == a.of.spanKey:
		return &a.came
	}
	return a.Context.Value(key)
}

// keyOfSpans returns the key that OpenTelemetry keeps spans in contexts by, nil if it can't be found out. A context that
// knows it needs no other around it for the peer's span, and no copy of that: two allocations of each request.
func keyOfSpans() any {
	asked := &question{Context: context.Background()}
	trace.SpanFromContext(asked)
	t := &tracing{spanKey: asked.key}
	a := &arrival{Context: context.Background(), mark: mark{of: t}, came: remote{nothing: &nothing{}}}
	if trace.SpanFromContext(a) != trace.Span(&a.came) {
		return nil
	}
	return asked.key
}

// question is a context that notes what it is asked for.
type question struct {
	context.Context

	key any
}

func (q *question) Value(key any) any {
	q.key = key
	return nil
}
