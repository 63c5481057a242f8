package tracing

import (
	"strings"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"

	"postbus.example/endpoint"
)

// carrier is a call to a propagator: the traceparent is the call's, which travels as the transport sees fit; everything else
// is a header. It holds one pointer, so that making an interface of it costs nothing.
type carrier struct{ call *endpoint.Call }

// unsampled is the carrier of a context that is not sampled: it costs no header, so nothing of it is written but the
// traceparent.
type unsampled struct{ carrier }

var (
	_ propagation.TextMapCarrier = carrier{}
	_ propagation.TextMapCarrier = unsampled{}
)

// Get joins repeated headers by commas, as RFC 9110, 5.3, has it. A repeated traceparent is none.
func (k carrier) Get(key string) string {
	var first string
	var more []string
	for name, v := range k.call.Header.All() {
		switch {
		case !strings.EqualFold(name, key):
		case first == "":
			first = v
		default:
			more = append(more, v)
		}
	}
	switch {
	case key == traceparent && more != nil:
		return ""
	case key == traceparent:
		return k.call.Trace()
	case more != nil:
		first += "," + strings.Join(more, ",")
	}
	if key == baggageName {
		return readable(first)
	}
	return first
}

// readable leaves out what can't be read of a baggage: the propagator would tell the error handler that all of the process
// shares, in the peer's words.
func readable(s string) string {
	if s == "" {
		return ""
	}
	if b, err := baggage.Parse(s); err != nil {
		return b.String()
	}
	return s
}

// Set writes. What would make the call's headers too large is left out: tracing never makes a call fail.
func (k carrier) Set(key, value string) {
	if key == traceparent {
		k.call.SetTrace(value)
		return
	}
	h := &k.call.Header
	h.Del(key)
	if value != "" && weight(h)+weigh(key, value) <= mostHeader {
		h.Add(key, value)
	}
}

// Keys returns the names of the headers.
func (k carrier) Keys() []string {
	keys := make([]string, 0, k.call.Header.Len()+1)
	for name := range k.call.Header.All() {
		keys = append(keys, name)
	}
	return append(keys, traceparent)
}

// Set leaves out the tracestate, which is of no use to those who do not sample.
func (k unsampled) Set(key, value string) {
	if key != tracestate {
		k.carrier.Set(key, value)
	}
}

// mostHeader leaves room for the traceparent and what a transport adds.
const mostHeader = endpoint.MaxHeaderBytes - 512

func weight(h *endpoint.Header) int {
	n := 0
	for name, v := range h.All() {
		n += weigh(name, v)
	}
	return n
}

func weigh(name, value string) int { return len(name) + len(value) + len(": \r\n") }
