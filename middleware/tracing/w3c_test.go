package tracing_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

// theirs is the W3C propagator in a wrapping that nobody knows: each header is asked for.
type theirs struct{ propagation.TextMapPropagator }

func w3c() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// arrives is what a handler, and who looks at the call, find of a request's trace.
func arrives(t testing.TB, tp trace.TracerProvider, prop propagation.TextMapPropagator, token string, kv ...string) (parent, own trace.SpanContext, shown string) {
	t.Helper()
	var asked context.Context
	sampler := sampling(func(p sdk.SamplingParameters) { asked = p.ParentContext }) //nolint:fatcontext // one call
	if tp == nil {
		tp = sdk.NewTracerProvider(sdk.WithSampler(sampler))
	}
	own, _, c := serveOne(t, tracing.New(tp, prop), token, kv...)
	return trace.SpanContextFromContext(asked), own, c.Trace()
}

// sampling is a sampler that says no to roots, what the parent's says otherwise, and is asked in any case.
type sampling func(sdk.SamplingParameters)

func (s sampling) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	s(p)
	return sdk.ParentBased(sdk.NeverSample()).ShouldSample(p)
}

func (sampling) Description() string { return "asked" }

func FuzzReadParent(f *testing.F) {
	f.Add(sampled)
	f.Add(unsampled)
	f.Add(unsampled[:53] + "02")
	f.Add(unsampled[:53] + "03")
	f.Add(unsampled[:53] + "04")
	f.Add(unsampled[:53] + "0g")
	f.Add(strings.ToUpper(unsampled))
	f.Add(unsampled[:40] + "F" + unsampled[41:])
	f.Add(unsampled[:20] + "-" + unsampled[21:])
	f.Add(unsampled[:20] + "\x0a" + unsampled[21:])
	f.Add("01" + unsampled[2:])
	f.Add("ff" + unsampled[2:])
	f.Add(unsampled + "-")
	f.Add("00-" + strings.Repeat("0", 32) + unsampled[35:])
	f.Add(unsampled[:36] + strings.Repeat("0", 16) + "-00")
	f.Add("00-" + traceOf + " " + spanOf + "-00")
	f.Fuzz(func(t *testing.T, token string) {
		ours, own, shown := arrives(t, nil, nil, token)
		want, _, wantShown := arrives(t, nil, theirs{w3c()}, token)
		assert.Equal(t, ours, want)
		if want.IsValid() {
			assert.Equal(t, own.TraceID(), want.TraceID())
			assert.Equal(t, own.IsSampled(), want.IsSampled())
		}
		if !own.IsSampled() && want.IsValid() {
			assert.Equal(t, shown, wantShown)
		}
	})
}

// What our own way writes is what the propagator would have written.
func TestWriteParent(t *testing.T) {
	for range 100 {
		var id trace.TraceID
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
		for _, flags := range []trace.TraceFlags{0, trace.FlagsRandom, trace.FlagsSampled, 0xff, 0xfe} {
			ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: id, SpanID: trace.SpanID(id[:8]), TraceFlags: flags,
			}))
			var want endpoint.Header
			propagation.TraceContext{}.Inject(ctx, into{&want})
			for name, prop := range map[string]propagation.TextMapPropagator{"ours": nil, "the same": w3c(), "theirs": theirs{w3c()}} {
				assert.Equal(t, send(t, ctx, tracing.New(nil, prop)).trace, want.Get("traceparent"), name)
			}
		}
	}
}

// into carries to headers alone.
type into struct{ *endpoint.Header }

func (c into) Set(key, value string) { c.Header.Set(key, value) }
func (into) Keys() []string          { return nil }

// A sampler is asked for each call, and told of the peer's decision; the peer's span is nothing but its context.
func TestSamplerIsAsked(t *testing.T) {
	for token, want := range map[string]bool{"": false, unsampled: false, sampled: true} {
		n := 0
		tp := record(sdk.WithSampler(sampling(func(p sdk.SamplingParameters) {
			n++
			assert.Equal(t, p.Name, "svc/add")
			assert.Equal(t, len(p.Attributes), 2)
			peer := trace.SpanFromContext(p.ParentContext)
			assert.Equal(t, peer.SpanContext().IsValid(), token != "")
			assert.Equal(t, peer.SpanContext().IsRemote(), token != "")
			assert.True(t, !peer.IsRecording(), "a peer's")
			peer.SetName("no")
			peer.End()
		})))
		sc, _, _ := serveOne(t, tracing.New(tp, nil), token)
		assert.Equal(t, n, 1)
		assert.Equal(t, sc.IsSampled(), want)
		assert.Equal(t, len(tp.take()), map[bool]int{true: 1}[want])
	}
}
