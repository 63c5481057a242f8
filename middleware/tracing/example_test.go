package tracing_test

import (
	"context"
	"fmt"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"postbus.example/endpoint"
	"postbus.example/middleware/tracing"
)

// Two services, one of which calls the other: one trace.
func ExampleNew() {
	spans := tracetest.NewInMemoryExporter() // a program has an exporter for OTLP or Zipkin, in batches
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))

	mux := endpoint.NewMux()
	mux.Use(tracing.New(provider, nil)) // around every handler and caller
	_ = mux.Serve("price.of", endpoint.New(add))
	price := endpoint.Caller[*addRequest, *addResponse](mux, "price.of")
	_ = mux.Serve("cart.total", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		return price(ctx, r)
	}))

	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "cart.total")(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Print(tree(spans.GetSpans()))
	// Output:
	// client cart/total
	//   server cart/total
	//     client price/of
	//       server price/of
}

// The trace is in the context. A handler that makes its calls with another one begins a new trace with each of them.
func ExampleNew_incorrect() {
	spans := tracetest.NewInMemoryExporter()
	mux := endpoint.NewMux()
	mux.Use(tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(spans)), nil))
	_ = mux.Serve("price.of", endpoint.New(add))
	price := endpoint.Caller[*addRequest, *addResponse](mux, "price.of")
	_ = mux.Serve("cart.total", endpoint.New(func(_ context.Context, r *addRequest) (*addResponse, error) {
		return price(context.Background(), r)
	}))

	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "cart.total")(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Print(tree(spans.GetSpans()))
	// Output:
	// client cart/total
	//   server cart/total
	// client price/of
	//   server price/of
}

// The same value outermost and innermost, with a retry in between, shows each attempt. (This one tries again whatever is
// unavailable; middleware.Retry has a law.)
func ExampleNew_attempts() {
	spans := tracetest.NewInMemoryExporter()
	traced := tracing.New(sdk.NewTracerProvider(sdk.WithSyncer(spans)), nil)
	mux := endpoint.NewMux()
	_ = mux.Serve("price.of", endpoint.New(flaky(1), traced))
	price := endpoint.Caller[*addRequest, *addResponse](mux, "price.of", traced, again(3), traced)

	_, _ = price(context.Background(), &addRequest{A: 1, B: 2})
	fmt.Print(tree(spans.GetSpans()))
	// Output:
	// client price/of
	//   client price/of attempt unavailable
	//     server price/of unavailable
	//   client price/of attempt
	//     server price/of
}

// A bridge at the edge has a value of its own, which does not let strangers decide where our traces begin, what is
// sampled and what is in the baggage.
func ExampleUntrusted() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	mux := endpoint.NewMux()
	_ = mux.Serve("cart.total", endpoint.New(add, tracing.New(provider, nil)))
	anybody := tracing.Untrusted(func(*endpoint.Call) bool { return true })
	call := endpoint.Caller[*addRequest, *addResponse](mux, "cart.total", tracing.New(provider, nil, anybody))

	stranger := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	_, _ = call(endpoint.WithHeader(context.Background(), "traceparent", stranger), &addRequest{A: 1, B: 2})
	fmt.Print(tree(spans.GetSpans()))
	first := spans.GetSpans()[1]
	fmt.Println("parent:", first.Parent.IsValid(), "linked to:", first.Links[0].SpanContext.TraceID())
	// Output:
	// client cart/total
	//   server cart/total
	// parent: false linked to: 0af7651916cd43dd8448eb211c80319c
}
