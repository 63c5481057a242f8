package bustest_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/tracing"
)

// TestOneTrace follows a browser's trace from HTTP through the bridge to a service, and from there to another one.
func TestOneTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	b := alone(t)
	d := middleware.Defaults{Tracing: tracing.New(provider, nil), Retry: &middleware.RetryPolicy{}}
	b.Use(middleware.Server(d), middleware.Client(d))
	sum := endpoint.Caller[*addRequest, *addResponse](b, "back.add")
	assert.NoError(t, b.Serve("back.add", endpoint.New(add)))
	assert.NoError(t, b.Serve("front.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) { return sum(ctx, r) })))

	url := bridge(t, b, httpbridge.Expose("front.add"))
	const traceID, browser = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	code, body := post(t, url+"/front/add", `{"a":1,"b":2}`, "traceparent", "00-"+traceID+"-"+browser+"-01")
	assert.Equal(t, code, 200, body)

	// From the outermost to the innermost: each is the parent of the next.
	hops := []struct {
		name string
		kind api.SpanKind
	}{
		{"front/add", api.SpanKindClient},         // the bridge's call
		{"front/add attempt", api.SpanKindClient}, // and its only attempt
		{"front/add", api.SpanKindServer},
		{"back/add", api.SpanKindClient},
		{"back/add attempt", api.SpanKindClient},
		{"back/add", api.SpanKindServer},
	}
	got := spans.GetSpans()
	assert.Equal(t, len(got), len(hops), "spans")
	parent := browser
	for _, hop := range hops {
		found := false
		for _, s := range got {
			if s.Parent.SpanID().String() != parent {
				continue
			}
			assert.Equal(t, s.Name, hop.name)
			assert.Equal(t, s.SpanKind, hop.kind, hop.name)
			assert.Equal(t, s.SpanContext.TraceID().String(), traceID, hop.name)
			parent, found = s.SpanContext.SpanID().String(), true
			break
		}
		assert.True(t, found, hop.name, "has the parent it must have")
	}
	for _, s := range got {
		instance := ""
		for _, a := range s.Attributes {
			if a.Key == "postbus.instance" {
				instance = a.Value.AsString()
			}
		}
		assert.Equal(t, instance, b.ID(), s.Name, "says who served it")
	}
}
