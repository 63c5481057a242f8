package tracing

import (
	"reflect"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	w3 "postbus.example/internal/traceparent" // traceparent is the name of the header here
)

// w3c is what contexts are carried by unless a program says otherwise: W3C trace context and baggage. Where nothing but the
// traceparent travels, it is written and read here, as propagation.TraceContext does, without asking a carrier for each
// header that there might be.
func w3c() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// isW3C reports whether a program's own choice is the same.
func isW3C(prop propagation.TextMapPropagator) bool { return reflect.DeepEqual(prop, w3c()) }

const knownFlags = trace.FlagsSampled | trace.FlagsRandom

// writeParent returns a traceparent.
func writeParent(sc *trace.SpanContext) string {
	t, s := sc.TraceID(), sc.SpanID()
	var p w3.Parts
	copy(p[:], t[:])
	copy(p[len(t):], s[:])
	p[len(p)-1] = byte(sc.TraceFlags() & knownFlags)
	return w3.Write(&p)
}

// readParent reads a traceparent of version 00. It says no to others, and to what can't be read.
func readParent(s string) (trace.SpanContext, bool) {
	p, ok := w3.Read(s)
	if flags := trace.TraceFlags(p[len(p)-1]); !ok || flags > knownFlags {
		return trace.SpanContext{}, false
	}
	c := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(p[len(p)-1]), Remote: true}
	copy(c.TraceID[:], p[:])
	copy(c.SpanID[:], p[len(c.TraceID):])
	sc := trace.NewSpanContext(c)
	return sc, sc.IsValid()
}
