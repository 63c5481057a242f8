package tracing_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

// threeHops sends one request the way it goes in life: a browser's headers at a gateway, from there to the service
// cart, which calls the service price, whose first answer is "come back later". Each program has its own provider. It
// returns the baggage that price saw.
func threeHops(t testing.TB, provider func(service string) trace.TracerProvider) (atPrice baggage.Baggage) {
	t.Helper()
	wire := endpoint.NewMux() // what stands between the three
	program := func(service string) endpoint.Middleware { return tracing.New(provider(service), nil) }

	price, failures := program("price"), 1
	serve(t, wire, "price.of", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if failures--; failures >= 0 {
			return nil, endpoint.Unavailable.New("come back later")
		}
		atPrice = baggage.FromContext(ctx)
		return add(ctx, r)
	}, price))

	cart := program("cart")
	priceOf := caller(wire, "price.of", twice(cart, again(3)))
	serve(t, wire, "cart.total", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		return priceOf(ctx, r)
	}, cart))

	gateway := caller(wire, "cart.total", program("gateway"))
	fromBrowser := endpoint.WithHeader(t.Context(), "traceparent", sampled, "tracestate", "vendor=1", "baggage", "user=ann")
	resp, err := gateway(fromBrowser, &addRequest{A: 1, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 3)
	return atPrice
}

func TestThreeHops(t *testing.T) {
	tp := record()
	bag := threeHops(t, func(string) trace.TracerProvider { return tp })
	spans := tp.take()
	assert.Equal(t, tree(spans), `client cart/total
  server cart/total
    client price/of
      client price/of attempt unavailable
        server price/of unavailable
      client price/of attempt
        server price/of
`)
	assert.Equal(t, spans[0].Parent.SpanID().String(), spanOf, "the browser's is the parent of all")
	for _, s := range spans {
		assert.Equal(t, s.SpanContext.TraceID().String(), traceOf, "one trace")
		assert.Equal(t, s.SpanContext.TraceState().String(), "vendor=1")
		assert.Equal(t, s.Parent.IsRemote(), s.SpanKind == trace.SpanKindServer || s.Name == "cart/total")
	}
	assert.Equal(t, bag.String(), "user=ann")
}
