package tracing_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

// sent is what a transport finds in a call.
type sent struct {
	trace  string
	header endpoint.Header
}

// send makes one call with mw and returns what a transport finds.
func send(t testing.TB, ctx context.Context, mw endpoint.Middleware) sent {
	t.Helper()
	var s sent
	_, err := caller(transport(func(ctx context.Context, c *endpoint.Call) (any, error) {
		s = sent{c.Trace(), c.Header.Clone()}
		return ok(ctx, c)
	}), "svc.add", mw)(ctx, &addRequest{})
	assert.NoError(t, err)
	return s
}

// serveOne runs a service's chain for a request with a traceparent in the token and headers, and returns what the handler
// finds in its context.
func serveOne(t testing.TB, mw endpoint.Middleware, token string, kv ...string) (trace.SpanContext, baggage.Baggage, *endpoint.Call) {
	t.Helper()
	c := newCall(endpoint.ServerSide)
	c.SetTrace(token)
	for i := 0; i < len(kv); i += 2 {
		c.Header.Add(kv[i], kv[i+1])
	}
	var sc trace.SpanContext
	var bag baggage.Baggage
	_, err := mw(func(ctx context.Context, c *endpoint.Call) (any, error) {
		sc, bag = trace.SpanContextFromContext(ctx), baggage.FromContext(ctx)
		return ok(ctx, c)
	})(t.Context(), c)
	assert.NoError(t, err)
	return sc, bag, c
}

func withState(t testing.TB, ctx context.Context, flags trace.TraceFlags) context.Context {
	t.Helper()
	state, err := trace.ParseTraceState("vendor=1")
	assert.NoError(t, err)
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, TraceState: state,
	}))
}

func TestUnsampledCostsNoHeader(t *testing.T) {
	browser := endpoint.WithHeader(t.Context(), "traceparent", unsampled, "tracestate", "vendor=1")
	for _, tc := range []struct {
		name string
		ctx  context.Context
		tp   trace.TracerProvider
	}{
		{"a root", t.Context(), never()},
		{"below a span", withState(t, t.Context(), 0), record()},
		{"below headers", browser, record()},
		{"without spans", withState(t, t.Context(), 0), nil},
		{"without spans, below headers", browser, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := send(t, tc.ctx, tracing.New(tc.tp, nil))
			assert.Equal(t, s.header.Len(), 0)
			assert.True(t, len(s.trace) == len(unsampled) && strings.HasSuffix(s.trace, "-00"), s.trace)
		})
	}
	s := send(t, t.Context(), tracing.New(nil, nil))
	assert.Equal(t, s.trace, "", "there is none")
	assert.Equal(t, s.header.Len(), 0)
}

func TestSampledGoesWithState(t *testing.T) {
	bag, err := baggage.Parse("user=ann,plan=a%20b")
	assert.NoError(t, err)
	ctx := baggage.ContextWithBaggage(withState(t, t.Context(), trace.FlagsSampled), bag)
	tp := record()
	s := send(t, ctx, tracing.New(tp, nil))
	assert.Equal(t, s.trace, traceparentOf(tp.take()[0]))
	assert.Equal(t, s.header.Get("tracestate"), "vendor=1")
	got, err := baggage.Parse(s.header.Get("baggage"))
	assert.NoError(t, err)
	assert.Equal(t, got, bag)
	assert.Equal(t, s.header.Len(), 2, "the traceparent is the transport's to write")
}

func TestBaggageWithoutATrace(t *testing.T) {
	bag, err := baggage.Parse("user=ann")
	assert.NoError(t, err)
	ctx := baggage.ContextWithBaggage(t.Context(), bag)
	for _, tp := range []trace.TracerProvider{nil, never()} {
		s := send(t, ctx, tracing.New(tp, nil))
		assert.Equal(t, s.header.Get("baggage"), "user=ann")
		assert.Equal(t, s.header.Len(), 1)

		s = send(t, endpoint.WithHeader(withState(t, t.Context(), 0), "baggage", "user=bob"), tracing.New(tp, nil))
		assert.Equal(t, s.header.Get("baggage"), "user=bob", "a program may say it by a header")

		s = send(t, endpoint.WithHeader(ctx, "baggage", "user=bob"), tracing.New(tp, nil))
		assert.Equal(t, s.header.Get("baggage"), "user=ann", "what the program says comes first")
		assert.Equal(t, s.header.Len(), 1)
	}
}

func TestClientParents(t *testing.T) {
	inContext := withState(t, t.Context(), trace.FlagsSampled)
	for _, tc := range []struct {
		name   string
		ctx    context.Context
		parent string // trace id; "": a root
	}{
		{"nothing", t.Context(), ""},
		{"a span", inContext, "01000000000000000000000000000000"},
		{"headers, as a bridge passes them", endpoint.WithHeader(t.Context(), "traceparent", sampled, "tracestate", "vendor=2"), traceOf},
		{"both", endpoint.WithHeader(inContext, "traceparent", sampled, "tracestate", "vendor=2"), "01000000000000000000000000000000"},
		{"malformed", endpoint.WithHeader(t.Context(), "traceparent", "00-x", "tracestate", "vendor=2"), ""},
		{"repeated", endpoint.WithHeader(t.Context(), "traceparent", sampled, "Traceparent", sampled), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tp := record()
			s := send(t, tc.ctx, tracing.New(tp, nil))
			span := tp.take()[0]
			if tc.parent == "" {
				assert.True(t, !span.Parent.IsValid(), "a root")
			} else {
				assert.Equal(t, span.Parent.TraceID().String(), tc.parent)
			}
			assert.Equal(t, s.trace, traceparentOf(span))
			assert.Equal(t, s.header.Get("traceparent"), "", "one is enough")
			assert.Equal(t, s.header.Get("tracestate"), span.SpanContext.TraceState().String(), "that of the trace")
		})
	}
}

func TestServerParents(t *testing.T) {
	for _, tc := range []struct {
		name  string
		token string
		kv    []string
		want  bool
	}{
		{"a token", sampled, nil, true},
		{"a header", "", []string{"traceparent", sampled}, true},
		{"a header in capitals", "", []string{"TraceParent", sampled}, true},
		{"both", sampled, []string{"traceparent", "00-x"}, true},
		{"a later version", "cc-" + sampled[3:] + "-what-comes-then", nil, true},
		{"nothing", "", nil, false},
		{"no traceparent", "", []string{"tracestate", "vendor=1"}, false},
		{"malformed", "", []string{"traceparent", "00-" + traceOf}, false},
		{"in capitals", strings.ToUpper(sampled), nil, false},
		{"of zeros", "00-" + strings.Repeat("0", 32) + sampled[35:], nil, false},
		{"of version ff", "ff" + sampled[2:], nil, false},
		{"repeated", "", []string{"traceparent", sampled, "traceparent", sampled}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tp := record()
			sc, _, c := serveOne(t, tracing.New(tp, nil), tc.token, tc.kv...)
			span := tp.take()[0]
			assert.Equal(t, span.Parent.IsValid(), tc.want)
			if tc.want {
				assert.Equal(t, span.Parent.TraceID().String()+span.Parent.SpanID().String(), traceOf+spanOf)
				assert.True(t, span.Parent.IsRemote(), "remote")
			}
			assert.Equal(t, sc.SpanID(), span.SpanContext.SpanID(), "the handler's")
			assert.Equal(t, c.Trace(), traceparentOf(span), "what logs see")
		})
	}
}

func TestServerShowsItsTrace(t *testing.T) {
	_, _, c := serveOne(t, tracing.New(never(), nil), unsampled)
	assert.Equal(t, c.Trace(), unsampled, "good enough: the trace's id is the same")
	sc, _, c := serveOne(t, tracing.New(never(), nil), "")
	assert.Contains(t, c.Trace(), sc.TraceID().String(), sc.SpanID().String())
	_, _, c = serveOne(t, tracing.New(nil, nil), "")
	assert.Equal(t, c.Trace(), "")
	sc, _, c = serveOne(t, tracing.New(never(), nil), "00-x")
	assert.Contains(t, c.Trace(), sc.TraceID().String(), sc.SpanID().String())

	// A transport within the process may hand on its caller's context.
	bag, err := baggage.Parse("user=bob")
	assert.NoError(t, err)
	c = newCall(endpoint.ServerSide)
	c.Header.Add("baggage", "user=ann")
	_, err = tracing.New(never(), nil)(func(ctx context.Context, c *endpoint.Call) (any, error) {
		assert.Contains(t, c.Trace(), trace.SpanContextFromContext(ctx).SpanID().String())
		assert.Equal(t, baggage.FromContext(ctx).String(), "user=ann", "what the request says")
		return ok(ctx, c)
	})(baggage.ContextWithBaggage(withState(t, t.Context(), 0), bag), c)
	assert.NoError(t, err)
}

func TestStateAndBaggageOfARequest(t *testing.T) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Error("the process is told of a peer's header:", err) }))
	defer otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	for _, tc := range []struct{ name, state, wantState, bag, wantBag string }{
		{"both", "a=1", "a=1", "user=ann", "user=ann"},
		{"malformed state", "=,=", "", "user=ann", "user=ann"},
		{"malformed baggage", "a=1", "a=1", "=;,%", ""},
		{"malformed in part", "a=1", "a=1", "user=ann,=x", "user=ann"},
		{"too long", "a=1", "a=1", "user=" + strings.Repeat("x", 9000), ""},
		{"too many", "a=1", "a=1", "user=ann" + strings.Repeat(",user=ann", 200), "user=ann"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc, bag, _ := serveOne(t, tracing.New(record(), nil), sampled, "tracestate", tc.state, "baggage", tc.bag)
			assert.Equal(t, sc.TraceState().String(), tc.wantState)
			assert.Equal(t, bag.String(), tc.wantBag)
		})
	}
	sc, bag, _ := serveOne(t, tracing.New(record(), nil), sampled, "tracestate", "a=1", "baggage", "x=1", "Tracestate", "b=2", "Baggage", "y=2")
	assert.Equal(t, sc.TraceState().String(), "a=1,b=2", "one list in two headers")
	assert.Equal(t, bag.Len(), 2)
}

func TestUntrustedService(t *testing.T) {
	tp := record()
	edge := tracing.Untrusted(func(c *endpoint.Call) bool { return c.Header.Get("Via") != "" })
	mw := tracing.New(tp, nil, nil, edge)

	_, bag, c := serveOne(t, mw, sampled, "Via", "bridge", "tracestate", "v=1", "baggage", "user=root")
	span := tp.take()[0]
	assert.True(t, !span.Parent.IsValid() && span.SpanContext.TraceID().String() != traceOf, "a trace of its own")
	assert.Equal(t, span.SpanContext.TraceState().String(), "")
	assert.Equal(t, len(span.Links), 1)
	link := span.Links[0].SpanContext
	assert.Equal(t, link.TraceID().String()+link.SpanID().String(), traceOf+spanOf)
	assert.Equal(t, link.TraceState().String(), "")
	assert.Equal(t, bag.Len(), 0)
	assert.Equal(t, c.Trace(), traceparentOf(span))

	_, bag, _ = serveOne(t, mw, sampled, "baggage", "user=ann")
	span = tp.take()[0]
	assert.Equal(t, span.Parent.TraceID().String(), traceOf, "a peer that is trusted")
	assert.Equal(t, len(span.Links), 0)
	assert.Equal(t, bag.Len(), 1)

	_, bag, _ = serveOne(t, mw, "00-x", "Via", "bridge", "baggage", "user=root")
	span = tp.take()[0]
	assert.Equal(t, len(span.Links), 0, "nothing to link to")
	assert.Equal(t, bag.Len(), 0)

	// A transport within the process may hand on its caller's span.
	stranger := newCall(endpoint.ServerSide)
	stranger.Header.Add("Via", "bridge")
	stranger.SetTrace(sampled)
	_, err := mw(ok)(withState(t, t.Context(), trace.FlagsSampled), stranger)
	assert.NoError(t, err)
	assert.True(t, !tp.take()[0].Parent.IsValid(), "a root")

	sc, _, _ := serveOne(t, tracing.New(record(sdk.WithSampler(sdk.ParentBased(sdk.NeverSample()))), nil, edge), sampled, "Via", "bridge")
	assert.True(t, !sc.IsSampled(), "who is sampled is not the stranger's choice")
}

func TestUntrustedBridge(t *testing.T) {
	headers := []string{"traceparent", sampled, "tracestate", "v=1", "baggage", "user=root", "X-Kept", "1"}
	all := tracing.Untrusted(func(c *endpoint.Call) bool { return c.Side == endpoint.ClientSide })
	tp := record()
	s := send(t, endpoint.WithHeader(t.Context(), headers...), tracing.New(tp, nil, all))
	span := tp.take()[0]
	assert.True(t, !span.Parent.IsValid() && span.SpanContext.TraceID().String() != traceOf, "a trace of its own")
	assert.Equal(t, span.Links[0].SpanContext.TraceID().String(), traceOf)
	assert.Equal(t, s.trace, traceparentOf(span))
	assert.Equal(t, s.header.Len(), 1, "only what is none of tracing's business goes on")

	// The program's own span comes first: nothing that the headers say is used.
	s = send(t, endpoint.WithHeader(withState(t, t.Context(), trace.FlagsSampled), headers...), tracing.New(tp, nil, all))
	span = tp.take()[0]
	assert.Equal(t, span.Parent.TraceID(), trace.TraceID{1})
	assert.Equal(t, len(span.Links), 0)
	assert.Equal(t, s.header.Get("baggage"), "")
	assert.Equal(t, s.header.Get("tracestate"), "vendor=1")

	given := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			c.SetTrace(sampled)
			return next(ctx, c)
		}
	}
	s = send(t, endpoint.WithHeader(t.Context(), headers...), endpoint.Chain(given, tracing.New(nil, nil, all)))
	assert.Equal(t, s.trace, "", "without spans there is no trace to go on with")
	assert.Equal(t, s.header.Len(), 1)
}

// TestNothingGiven has no provider: contexts pass through it as they are.
func TestNothingGiven(t *testing.T) {
	for _, tp := range []trace.TracerProvider{nil, (*sdk.TracerProvider)(nil), noop.NewTracerProvider()} {
		mw := tracing.New(tp, nil, nil, tracing.Untrusted(nil))
		var got sent
		next := caller(transport(func(ctx context.Context, c *endpoint.Call) (any, error) {
			got = sent{c.Trace(), c.Header.Clone()}
			return ok(ctx, c)
		}), "svc.next", mw)
		m := endpoint.NewMux()
		m.Use(mw)
		serve(t, m, "svc.first", endpoint.New(next))
		_, err := caller(m, "svc.first")(endpoint.WithHeader(t.Context(), "traceparent", sampled, "tracestate", "v=1", "baggage", "user=ann"), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, got.trace, sampled)
		assert.Equal(t, got.header.Get("tracestate"), "v=1")
		assert.Equal(t, got.header.Get("baggage"), "user=ann")
	}
	s := send(t, t.Context(), tracing.New(record(), (*custom)(nil)))
	assert.True(t, s.trace != "", "W3C")
}

// custom is somebody's own format: one header, always there.
type custom struct{}

func (*custom) Fields() []string { return []string{"x-span"} }

func (*custom) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	c.Set("x-span", trace.SpanContextFromContext(ctx).TraceID().String()+trace.SpanContextFromContext(ctx).SpanID().String())
}

func (*custom) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	for _, name := range c.Keys() {
		if v := c.Get(name); name == "x-span" && len(v) == 48 {
			t, _ := trace.TraceIDFromHex(v[:32])
			s, _ := trace.SpanIDFromHex(v[32:])
			return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: t, SpanID: s}))
		}
	}
	return ctx
}

func TestCustomPropagator(t *testing.T) {
	tp := record(sdk.WithSampler(sdk.AlwaysSample()))
	mw := tracing.New(tp, &custom{})
	m := endpoint.NewMux()
	m.Use(mw)
	var header endpoint.Header
	serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		header = endpoint.FromContext(ctx).Header.Clone()
		return add(ctx, r)
	}))
	_, err := caller(m, "svc.add")(endpoint.WithHeader(t.Context(), "x-span", traceOf+spanOf), &addRequest{})
	assert.NoError(t, err)
	spans := tp.take()
	assert.Equal(t, tree(spans), "client svc/add\n  server svc/add\n")
	assert.Equal(t, spans[0].Parent.TraceID().String(), traceOf)
	assert.Equal(t, header.Values("x-span"), []string{traceOf + spans[0].SpanContext.SpanID().String()})
	assert.Equal(t, header.Len(), 1)
}

// TestNoRoom has headers that leave no room: a call never fails for the sake of tracing.
func TestNoRoom(t *testing.T) {
	member, err := baggage.NewMemberRaw("user", strings.Repeat("x", 5000))
	assert.NoError(t, err)
	bag, err := baggage.New(member)
	assert.NoError(t, err)
	ctx := baggage.ContextWithBaggage(withState(t, t.Context(), trace.FlagsSampled), bag)
	m := endpoint.NewMux()
	mw := tracing.New(record(), nil)
	m.Use(mw)
	serve(t, m, "svc.add", endpoint.New(add))
	for _, size := range []int{10, 2600, 2700, 7500, 7800} {
		ctx := endpoint.WithHeader(ctx, "X-Large", strings.Repeat("y", size))
		_, err := caller(m, "svc.add")(ctx, &addRequest{})
		assert.NoError(t, err)
		s := send(t, ctx, mw)
		assert.Equal(t, s.header.Get("baggage") != "", size <= 2600)
		assert.Equal(t, s.header.Get("tracestate") != "", size <= 7500)
		assert.True(t, s.trace != "", "the trace goes on")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(sampled, "vendor=1", "user=ann;p=1,plan=x", true)
	f.Add(unsampled, "", "", false)
	f.Add("00-x", "=", "%", true)
	f.Add("cc-"+sampled[3:]+"-more", "a=1,a=1", ",,;;==", false)
	var complaints []error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { complaints = append(complaints, err) }))
	tp := record(sdk.WithSampler(sdk.AlwaysSample()))
	mw := tracing.New(tp, nil)
	f.Fuzz(func(t *testing.T, parent, state, bag string, header bool) {
		tp.take()
		token, kv := parent, []string{"tracestate", state, "baggage", bag}
		if header {
			token, kv = "", append(kv, "traceparent", parent)
		}
		sc, _, c := serveOne(t, mw, token, kv...)
		span := tp.take()[0]
		assert.True(t, sc.IsValid(), "there always is a span")
		assert.Equal(t, c.Trace(), traceparentOf(span))
		if span.Parent.IsValid() {
			assert.Contains(t, parent, span.Parent.TraceID().String(), span.Parent.SpanID().String())
		} else {
			assert.True(t, !strings.HasPrefix(parent, "00-") || len(parent) != len(sampled) || !valid(parent), "what is valid is gone on with")
		}
		s := send(t, endpoint.WithHeader(t.Context(), kv...), mw)
		if c.Header.Validate() == nil {
			assert.NoError(t, s.header.Validate(), "what could be sent still can")
		}
		assert.NoError(t, errors.Join(complaints...))
	})
}

// valid follows https://www.w3.org/TR/trace-context/#traceparent-header for version 00.
func valid(s string) bool {
	digits := strings.Trim(s, "0123456789abcdef-") == ""
	return digits && s[2] == '-' && s[35] == '-' && s[52] == '-' && strings.Count(s, "-") == 3 &&
		strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != "" && s[53] == '0' && s[54] <= '3'
}
