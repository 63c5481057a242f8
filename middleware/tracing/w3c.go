package tracing

import (
	"encoding/hex"
	"reflect"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// w3c is what contexts are carried by unless a program says otherwise: W3C trace context and baggage. Where nothing but the
// traceparent travels, it is written and read here, as propagation.TraceContext does, without asking a carrier for each
// header that there might be.
func w3c() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// isW3C reports whether a program's own choice is the same.
func isW3C(prop propagation.TextMapPropagator) bool { return reflect.DeepEqual(prop, w3c()) }

// Where the parts of a traceparent of version 00 are: 00-<32 hex digits: trace>-<16: span>-<2: flags>.
const (
	traceAt, spanAt, flagsAt, parentLength = 3, 36, 53, 55
	knownFlags                             = trace.FlagsSampled | trace.FlagsRandom
)

// writeParent returns a traceparent.
func writeParent(sc trace.SpanContext) string {
	var b [parentLength]byte
	t, s, flags := sc.TraceID(), sc.SpanID(), [1]byte{byte(sc.TraceFlags() & knownFlags)}
	copy(b[:], "00-")
	hex.Encode(b[traceAt:], t[:])
	b[spanAt-1] = '-'
	hex.Encode(b[spanAt:], s[:])
	b[flagsAt-1] = '-'
	hex.Encode(b[flagsAt:], flags[:])
	return string(b[:])
}

// readParent reads a traceparent of version 00. It says no to others, and to what can't be read.
func readParent(s string) (trace.SpanContext, bool) {
	if len(s) != parentLength || s[:traceAt] != "00-" || s[spanAt-1] != '-' || s[flagsAt-1] != '-' {
		return trace.SpanContext{}, false
	}
	const small = 0x20 // the bit that digits and small letters have, and capital letters have not
	all := byte(small)
	for i := range len(s) {
		all &= s[i]
	}
	c := trace.SpanContextConfig{Remote: true}
	var flags [1]byte
	_, err1 := hex.Decode(c.TraceID[:], []byte(s[traceAt:spanAt-1]))
	_, err2 := hex.Decode(c.SpanID[:], []byte(s[spanAt:flagsAt-1]))
	_, err3 := hex.Decode(flags[:], []byte(s[flagsAt:]))
	c.TraceFlags = trace.TraceFlags(flags[0])
	if err1 != nil || err2 != nil || err3 != nil || all == 0 || c.TraceFlags > knownFlags {
		return trace.SpanContext{}, false
	}
	sc := trace.NewSpanContext(c)
	return sc, sc.IsValid()
}
