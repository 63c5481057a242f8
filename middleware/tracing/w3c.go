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
	c := trace.SpanContextConfig{Remote: true}
	var flags [1]byte
	if !decodeHex(c.TraceID[:], s[traceAt:spanAt-1]) || !decodeHex(c.SpanID[:], s[spanAt:flagsAt-1]) || !decodeHex(flags[:], s[flagsAt:]) {
		return trace.SpanContext{}, false
	}
	if c.TraceFlags = trace.TraceFlags(flags[0]); c.TraceFlags > knownFlags {
		return trace.SpanContext{}, false
	}
	sc := trace.NewSpanContext(c)
	return sc, sc.IsValid()
}

// hexValues holds what each hex digit is worth, 0xff for what is none, capital letters among them.
const hexValues = "" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\x0a\x0b\x0c\x0d\x0e\x0f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// decodeHex reads small hex digits, two for each byte of dst, and reports whether that is all there is.
func decodeHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	var all byte
	for i := range dst {
		high, low := s[2*i], s[2*i+1]
		h, l := hexValues[high&0x7f], hexValues[low&0x7f]
		dst[i] = h<<4 | l
		all |= h | l | high&0x80 | low&0x80
	}
	return all < 16
}
