package tracing_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"postbus.example/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	traceOf   = "0af7651916cd43dd8448eb211c80319c"
	spanOf    = "b7ad6b7169203331"
	sampled   = "00-" + traceOf + "-" + spanOf + "-01"
	unsampled = "00-" + traceOf + "-" + spanOf + "-00"
)

type addRequest struct{ A, B int }

type addResponse struct{ Sum int }

func add(_ context.Context, r *addRequest) (*addResponse, error) {
	return &addResponse{Sum: r.A + r.B}, nil
}

// transport is the least transport there is: one handler for all subjects. It hands on the caller's context, values
// and all.
type transport endpoint.Handler

func (f transport) Handler(string, *endpoint.Spec) endpoint.Handler { return endpoint.Handler(f) }

type adder = endpoint.Unary[*addRequest, *addResponse]

func caller(t endpoint.Transport, subject string, opts ...endpoint.Option) adder {
	return endpoint.Caller[*addRequest, *addResponse](t, subject, opts...)
}

// ok answers every call at once.
func ok(context.Context, *endpoint.Call) (any, error) { return &addResponse{Sum: 3}, nil }

func serve(t testing.TB, m *endpoint.Mux, subject string, s endpoint.Servable) {
	t.Helper()
	if err := m.Serve(subject, s); err != nil {
		t.Fatal(err)
	}
}

// newCall makes a bare call for handlers that are run without a caller.
func newCall(side endpoint.Side) *endpoint.Call {
	s := *endpoint.New(add).Spec()
	s.Service, s.Name = "svc", "add"
	return endpoint.NewCall(&s, "svc.add", side)
}

// memory is a provider whose spans a test reads.
type memory struct {
	*sdk.TracerProvider
	spans *tracetest.InMemoryExporter
}

func record(opts ...sdk.TracerProviderOption) memory {
	m := memory{spans: tracetest.NewInMemoryExporter()}
	m.TracerProvider = sdk.NewTracerProvider(append(opts, sdk.WithSyncer(m.spans))...)
	return m
}

func never() *sdk.TracerProvider {
	return sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))
}

// take returns the spans so far, in the order in which they began, and forgets them.
func (m memory) take() tracetest.SpanStubs {
	spans := m.spans.GetSpans()
	m.spans.Reset()
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	return spans
}

// tree draws spans as lines, each below its parent: kind, name, and code unless it is ok. A span whose parent is not among
// them is a root.
func tree(spans tracetest.SpanStubs) string {
	children := map[trace.SpanID][]tracetest.SpanStub{}
	known := map[trace.SpanID]bool{}
	for _, s := range spans {
		known[s.SpanContext.SpanID()] = true
	}
	for _, s := range spans {
		p := s.Parent.SpanID()
		if !known[p] {
			p = trace.SpanID{}
		}
		children[p] = append(children[p], s)
	}
	var b strings.Builder
	var draw func(of trace.SpanID, depth int)
	draw = func(of trace.SpanID, depth int) {
		slices.SortStableFunc(children[of], func(a, b tracetest.SpanStub) int {
			return cmp.Or(a.StartTime.Compare(b.StartTime), cmp.Compare(a.Name, b.Name))
		})
		for _, s := range children[of] {
			fmt.Fprintf(&b, "%s%v %s", strings.Repeat("  ", depth), s.SpanKind, s.Name)
			if code := attr(s, "rpc.response.status_code").AsString(); code != "ok" {
				b.WriteString(" " + code)
			}
			b.WriteString("\n")
			draw(s.SpanContext.SpanID(), depth+1)
		}
	}
	draw(trace.SpanID{}, 0)
	return b.String()
}

// attr returns an attribute of a span, the zero value if it has none.
func attr(s tracetest.SpanStub, key attribute.Key) attribute.Value {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return kv.Value
		}
	}
	return attribute.Value{}
}

// attrs returns all attributes of a span.
func attrs(s tracetest.SpanStub) map[string]any {
	m := map[string]any{}
	for _, kv := range s.Attributes {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// again is a retry without its law: it tries up to n times what is unavailable.
func again(n int) endpoint.Middleware {
	return func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			if c.Side != endpoint.ClientSide {
				return next(ctx, c)
			}
			header, came := c.Header.Clone(), c.Trace()
			reply, err := next(ctx, c)
			for i := 1; i < n && errors.Is(err, endpoint.Unavailable); i++ {
				a := c.Retry()
				a.Header = header.Clone()
				a.SetTrace(came)
				reply, err = next(ctx, a)
				c.Adopt(a)
			}
			return reply, err
		}
	}
}

// twice puts the same middleware around a caller's attempts and again around what makes them.
func twice(mw, between endpoint.Middleware) endpoint.Middleware {
	return endpoint.Chain(mw, endpoint.Chain(between, mw))
}

// flaky is an add that is unavailable for its first calls.
func flaky(failures int) adder {
	return func(ctx context.Context, r *addRequest) (*addResponse, error) {
		if failures--; failures >= 0 {
			return nil, endpoint.Unavailable.New("come back later")
		}
		return add(ctx, r)
	}
}
