package tracing

import (
	"context"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"postbus.example/endpoint"
)

// Option configures [New].
type Option func(*tracing)

// Untrusted marks an edge of trust: where edge returns true, the trace that comes with a call is not continued. The call's
// span begins a trace of its own with a link to the one that came, the caller's wish to be sampled counts for nothing, and its
// tracestate and baggage are dropped. edge is asked once for each call that brings a trace or headers, in its goroutine; at a
// service the trace is that of the request, in a program that passes requests on as a bridge does it is that of the
// headers which the call is made with. A middleware value of its own for the bridge keeps its calls apart. By default, and
// for nil, all are trusted.
func Untrusted(edge func(c *endpoint.Call) bool) Option {
	return func(t *tracing) { t.untrusted = edge }
}

// New traces calls with spans of tp, and carries their context along by prop. It is one definition for both sides and all
// kinds: see the package's documentation for what it does on each.
//
// A nil tp makes no spans: contexts that come with a request are handed to the handler and go on with the calls it makes. A
// nil prop carries W3C trace context and baggage. Nothing is taken from OpenTelemetry's globals.
//
// The value is safe for concurrent use, and independent of others. Put the same one around the callers and handlers of a
// bus; where it stands twice around one caller, outermost and again within a retry, it is the inner one that
// traces each attempt.
func New(tp trace.TracerProvider, prop propagation.TextMapPropagator, opts ...Option) endpoint.Middleware {
	if absent(tp) {
		tp = noop.NewTracerProvider()
	}
	if absent(prop) {
		prop = w3c()
	}
	t := &tracing{
		tracer: tp.Tracer(scopeName, trace.WithSchemaURL(schemaURL)), prop: prop, w3c: isW3C(prop),
		spanKey: keyOfSpans(), remote: &nothing{},
	}
	t.fields = slices.DeleteFunc(prop.Fields(), func(name string) bool { return name == baggageName })
	for _, o := range opts {
		if o != nil {
			o(t)
		}
	}
	return func(next endpoint.Handler) endpoint.Handler {
		return (&handler{tracing: t, next: next}).handler()
	}
}

// absent reports whether an interface holds nothing, or a nil pointer.
func absent(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// tracing is one middleware value.
type tracing struct {
	tracer    trace.Tracer
	prop      propagation.TextMapPropagator
	w3c       bool     // prop is that of w3c
	fields    []string // what the propagator writes of a trace
	spanKey   any      // see keyOfSpans
	remote    *nothing // what each remote span is made of
	untrusted func(*endpoint.Call) bool
}

// handler is the middleware value around one caller or endpoint.
type handler struct {
	*tracing

	next  endpoint.Handler
	bound atomic.Pointer[binding]
}

// binding is what spans of one operation have in common.
type binding struct {
	spec    *endpoint.Spec
	method  string
	attempt string
	options []trace.SpanStartOption
}

// of returns the binding of a call: looked up once, since a handler belongs to one operation.
func (h *handler) of(c *endpoint.Call) *binding {
	if b := h.bound.Load(); b != nil && b.spec == c.Spec {
		return b
	}
	m := method(c.Spec)
	b := &binding{spec: c.Spec, method: m, attempt: m + attemptTail, options: []trace.SpanStartOption{
		trace.WithSpanKind(kind(c.Side)),
		trace.WithAttributes(keySystem.String(systemName), keyMethod.String(m)), // samplers may ask for them
	}}
	h.bound.Store(b)
	return b
}

// handler tells a call from an attempt. Attempts of what is not recorded aren't either: they go out with the call's context.
func (h *handler) handler() endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		c.AtOnce()
		switch h.stands(ctx, c) {
		case within:
			return h.next(ctx, c)
		case around:
			return h.attempt(ctx, c)
		case outermost:
		}
		if c.Side == endpoint.ServerSide {
			return h.serve(ctx, c)
		}
		return h.depart(ctx, c).run(h.next)
	}
}

// serve runs a handler with its span.
//
//go:noinline
func (h *handler) serve(ctx context.Context, c *endpoint.Call) (any, error) {
	own, span := h.arrive(ctx, c)
	return h.run(own, c, span)
}

// position is where a handler stands.
type position uint8

const (
	outermost position = iota
	within             // another one of the same middleware value stands around the call, and does what there is to do
	around             // the same, and this one stands around an attempt of a call that is recorded
)

func (h *handler) stands(ctx context.Context, c *endpoint.Call) position {
	switch outer := ctx.Value(h.tracing).(type) {
	case *arrival:
		if outer.holds(c) {
			return within
		}
	case *scope:
		switch {
		case !outer.holds(c):
		case c.Side == endpoint.ServerSide || !outer.recorded():
			return within
		default:
			return around
		}
	}
	return outermost
}

// depart begins the span of a caller's call. All that it has on the stack stands above what begins a span, which needs a lot
// there, and is gone when the call waits.
//
//nolint:spancheck // run ends it
func (h *handler) depart(ctx context.Context, c *endpoint.Call) *scope {
	if c.Trace() != "" || c.Header.Len() > 0 {
		return h.departOn(ctx, c)
	}
	s := &scope{Context: ctx, mark: mark{h.tracing, c}, span: trace.SpanFromContext(ctx)} // the caller's it is
	b := h.of(c)
	s.values, s.span = h.tracer.Start((*outset)(s), b.method, b.options...)
	h.injectSpan(ctx, s)
	return s
}

// departOn is depart for a call that may bring a trace of its own.
//
//go:noinline
func (h *handler) departOn(ctx context.Context, c *endpoint.Call) *scope {
	s := &scope{Context: ctx, mark: mark{h.tracing, c}}
	parent, link := h.parent(ctx, c)
	s.values, s.span = h.startLinked(parent, &link, c)
	h.injectSpan(parent, s)
	return s
}

// injectSpan writes the span's context to the call.
//
//go:noinline
func (t *tracing) injectSpan(parent context.Context, s *scope) {
	sc := s.span.SpanContext()
	t.inject(parent, s.values, s.call, &sc)
}

// arrive begins the span of a handler.
func (h *handler) arrive(ctx context.Context, c *endpoint.Call) (context.Context, trace.Span) {
	a := &arrival{Context: ctx, mark: mark{h.tracing, c}}
	parent, link := h.origin(a, c)
	own, span := h.startLinked(parent, &link, c)
	if span.IsRecording() && !c.Received().IsZero() {
		span.SetAttributes(keyQueueWait.Float64(max(time.Since(c.Received()).Seconds(), 0)))
	}
	h.show(parent, c, span.SpanContext())
	return own, span
}

// start begins a span.
//
//nolint:spancheck // run ends it
func (h *handler) start(parent context.Context, c *endpoint.Call) (context.Context, trace.Span) {
	b := h.of(c)
	return h.tracer.Start(parent, b.method, b.options...)
}

// startLinked begins a span, in a trace of its own if there is one to link to.
//
//nolint:spancheck // run ends it
func (h *handler) startLinked(parent context.Context, link *trace.SpanContext, c *endpoint.Call) (context.Context, trace.Span) {
	if !link.IsValid() {
		return h.start(parent, c)
	}
	b := h.of(c)
	options := append(slices.Clip(b.options), trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: *link}))
	return h.tracer.Start(parent, b.method, options...)
}

// show lets logs and exemplars see the span. One that is not sampled and goes on with the trace that came may stay unseen.
func (*tracing) show(parent context.Context, c *endpoint.Call, sc trace.SpanContext) {
	if sc.IsValid() && (sc.IsSampled() || c.Trace() == "" || trace.SpanContextFromContext(parent).TraceID() != sc.TraceID()) {
		c.SetTrace(writeParent(&sc))
	}
}

// attempt makes the span of one attempt, which the peer's span becomes a child of.
//
//nolint:spancheck // run ends it
func (h *handler) attempt(ctx context.Context, c *endpoint.Call) (any, error) {
	b := h.of(c)
	options := append(slices.Clip(b.options), trace.WithAttributes(keyAttempt.Int(c.Attempt)))
	own, span := h.tracer.Start(ctx, b.attempt, options...)
	defer c.SetTrace(c.Trace()) // to who looks at the call afterwards it is the call's
	sc := span.SpanContext()
	h.inject(own, own, c, &sc)
	return h.run(endpoint.WithValues(ctx, own), c, span)
}

// origin is parent for a handler. Of most requests there is nothing but a traceparent, which the arrival itself takes.
func (t *tracing) origin(a *arrival, c *endpoint.Call) (_ context.Context, link trace.SpanContext) {
	if t.w3c && t.spanKey != nil && t.untrusted == nil && c.Header.Len() == 0 {
		if sc, ok := readParent(c.Trace()); ok {
			a.came = remote{t.remote, sc}
			return a, link
		}
	}
	return t.parent(a, c)
}

// parent returns ctx with the trace and the baggage that came with the call, or else the span to link to. A span that the
// program itself has in its context comes before what a caller's headers say.
func (t *tracing) parent(ctx context.Context, c *endpoint.Call) (_ context.Context, link trace.SpanContext) {
	if c.Trace() == "" && c.Header.Len() == 0 {
		return ctx, link
	}
	ours := c.Side == endpoint.ClientSide && trace.SpanContextFromContext(ctx).IsValid()
	switch {
	case t.untrusted != nil && t.untrusted(c):
		if !ours {
			link = trace.SpanContextFromContext(t.prop.Extract(context.Background(), carrier{c})).WithTraceState(trace.TraceState{})
		}
		if c.Side == endpoint.ClientSide {
			t.drop(c)
			c.Header.Del(baggageName)
			c.SetTrace("")
		}
		return ctx, link
	case ours:
		return ctx, link
	}
	out := t.prop.Extract(ctx, carrier{c})
	if c.Side == endpoint.ClientSide {
		if b := baggage.FromContext(ctx); b.Len() > 0 {
			out = baggage.ContextWithBaggage(out, b)
		}
	}
	return out, link
}

// inject writes the span's context to the call. Of the headers that came with it none is left to contradict. The baggage is the
// parent's.
func (t *tracing) inject(parent, own context.Context, c *endpoint.Call, sc *trace.SpanContext) {
	if sc.IsValid() {
		t.drop(c)
	}
	switch {
	case t.w3c && !sc.IsSampled() && baggage.FromContext(parent).Len() == 0:
		if sc.IsValid() {
			c.SetTrace(writeParent(sc))
		}
	case sc.IsSampled():
		t.prop.Inject(own, carrier{c})
	default:
		t.prop.Inject(own, unsampled{carrier{c}})
	}
}

func (t *tracing) drop(c *endpoint.Call) {
	if c.Header.Len() > 0 {
		for _, name := range t.fields {
			c.Header.Del(name)
		}
	}
}
