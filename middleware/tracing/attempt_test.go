package tracing_test

import (
	"context"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/tracing"
)

func TestAttempts(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(flaky(2), mw))
	var seen, after []string
	look := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			after = append(after, c.Trace())
			return reply, err
		}
	}
	wire := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			seen = append(seen, c.Trace())
			return next(ctx, c)
		}
	}
	_, err := caller(m, "svc.add", endpoint.Middleware(look), twice(mw, endpoint.Chain(endpoint.Middleware(look), again(3))), endpoint.With(wire))(t.Context(), &addRequest{})
	assert.NoError(t, err)

	spans := tp.take()
	assert.Equal(t, tree(spans), `client svc/add
  client svc/add attempt unavailable
    server svc/add unavailable
  client svc/add attempt unavailable
    server svc/add unavailable
  client svc/add attempt
    server svc/add
`)
	call := spans[0]
	for i, s := range []tracetest.SpanStub{spans[1], spans[3], spans[5]} {
		assert.Equal(t, attr(s, "postbus.attempt").AsInt64(), int64(i))
		assert.True(t, attr(s, "postbus.instance").AsString() != "", "an instance")
		assert.Equal(t, attr(s, "rpc.method").AsString(), "svc/add")
		assert.Equal(t, seen[i], traceparentOf(s), "the wire carries the attempt's")
		served := spans[2+2*i]
		_, numbered := attrs(served)["postbus.attempt"]
		assert.Equal(t, numbered, i > 0, "the service tells what is not the first")
		assert.Equal(t, attr(served, "postbus.attempt").AsInt64(), int64(i))
	}
	assert.Equal(t, spans[1].Status.Code, codes.Error)
	assert.Equal(t, call.Status.Code, codes.Unset, "the call went well")
	assert.Equal(t, attr(call, "postbus.instance").AsString(), attr(spans[5], "postbus.instance").AsString())
	assert.Equal(t, after, []string{traceparentOf(call), traceparentOf(call)}, "to the outside the call's")
}

func traceparentOf(s tracetest.SpanStub) string {
	sc := s.SpanContext
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + sc.TraceFlags().String()
}

// TestAttemptsAtOnce races two attempts, as a hedge does.
func TestAttemptsAtOnce(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(add, mw))
	hedge := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			a, b := c.Retry(), c.Retry()
			var g sync.WaitGroup
			g.Go(func() { _, _ = next(ctx, a) })
			reply, err := next(ctx, b)
			c.Adopt(b)
			g.Wait()
			return reply, err
		}
	}
	_, err := caller(m, "svc.add", twice(mw, hedge))(endpoint.WithHeader(t.Context(), "baggage", "a=b"), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, tree(tp.take()), `client svc/add
  client svc/add attempt
    server svc/add
  client svc/add attempt
    server svc/add
`)
}

func TestAttemptsOfWhatIsNotRecorded(t *testing.T) {
	mw := tracing.New(never(), nil)
	var seen []string
	wire := func(_ context.Context, c *endpoint.Call) (any, error) {
		assert.Equal(t, c.Header.Len(), 0)
		seen = append(seen, c.Trace())
		return nil, endpoint.Unavailable
	}
	_, err := caller(transport(wire), "svc.add", twice(mw, again(2)))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, len(seen), 2)
	assert.Equal(t, seen[0], seen[1], "all go out with the call's context")
	assert.Contains(t, seen[0], "-00")
}

// failOnce is unavailable the first time.
func failOnce() endpoint.Handler {
	failed := false
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		if failed {
			return ok(ctx, c)
		}
		failed = true
		return nil, endpoint.Unavailable
	}
}

// TestInnermostAlone has no call's span around its attempts: each is a span of its own.
func TestInnermostAlone(t *testing.T) {
	tp := record()
	_, err := caller(transport(failOnce()), "svc.add", endpoint.With(again(2), tracing.New(tp, nil)))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	spans := tp.take()
	assert.Equal(t, tree(spans), "client svc/add unavailable\nclient svc/add\n")
	assert.Equal(t, attr(spans[1], "postbus.attempt").AsInt64(), int64(1))
}

// TestCallsWithinCalls makes calls in every place that has the context of another one: none of them is an attempt of it.
func TestCallsWithinCalls(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	m := endpoint.NewMux()
	m.Use(mw)
	serve(t, m, "svc.add", endpoint.New(flaky(1)))
	serve(t, m, "auth.token", endpoint.New(flaky(1)))

	t.Run("in a handler", func(t *testing.T) {
		inner := caller(m, "svc.add", again(2), mw)
		serve(t, m, "front.sum", endpoint.New(inner, mw)) // mw a second time around the handler
		_, err := caller(m, "front.sum")(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, tree(tp.take()), `client front/sum
  server front/sum
    client svc/add
      client svc/add attempt unavailable
        server svc/add unavailable
      client svc/add attempt
        server svc/add
`)
	})
	t.Run("in a middleware", func(t *testing.T) {
		token := caller(m, "auth.token", again(2), mw)
		authenticate := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				if _, err := token(ctx, &addRequest{}); err != nil {
					return nil, err
				}
				return next(ctx, c)
			}
		}
		_, err := caller(m, "svc.add", endpoint.Middleware(authenticate), mw)(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, tree(tp.take()), `client svc/add
  client auth/token
    client auth/token attempt unavailable
      server auth/token unavailable
    client auth/token attempt
      server auth/token
  client svc/add attempt
    server svc/add
`)
	})
	t.Run("traced inside alone", func(t *testing.T) {
		token := caller(transport(failOnce()), "auth.token", again(2), mw)
		authenticate := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				if _, err := token(ctx, &addRequest{}); err != nil {
					return nil, err
				}
				return next(ctx, c)
			}
		}
		_, err := caller(transport(ok), "svc.add", mw, endpoint.Middleware(authenticate))(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, tree(tp.take()), `client svc/add
  client auth/token unavailable
  client auth/token
`)
	})
	t.Run("by the same caller", func(t *testing.T) {
		var sum adder
		deep := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				if m, _ := c.Message(); m.(*addRequest).A > 0 {
					if _, err := sum(ctx, &addRequest{A: m.(*addRequest).A - 1}); err != nil {
						return nil, err
					}
				}
				return next(ctx, c)
			}
		}
		sum = caller(m, "svc.add", endpoint.Middleware(deep), mw)
		_, err := sum(t.Context(), &addRequest{A: 1})
		assert.NoError(t, err)
		assert.Equal(t, tree(tp.take()), `client svc/add
  client svc/add
    client svc/add attempt
      server svc/add
  client svc/add attempt
    server svc/add
`)
	})
}

// TestServiceBelowItself serves a second attempt within the first one's context, with no caller of ours in between.
func TestServiceBelowItself(t *testing.T) {
	tp := record()
	outer := newCall(endpoint.ServerSide)
	inner := endpoint.NewCall(outer.Spec, "svc.add", endpoint.ServerSide)
	inner.Attempt = 1
	mw := tracing.New(tp, nil)
	_, err := mw(func(ctx context.Context, _ *endpoint.Call) (any, error) { return mw(ok)(ctx, inner) })(t.Context(), outer)
	assert.NoError(t, err)
	assert.Equal(t, tree(tp.take()), "server svc/add\n  server svc/add\n")
}

// TestContextThatCrosses has a transport that hands its caller's context to the handler, which calls itself.
func TestContextThatCrosses(t *testing.T) {
	tp := record()
	mw := tracing.New(tp, nil)
	var sum adder
	spec := *endpoint.New(add).Spec()
	spec.Service, spec.Name = "svc", "add"
	serveHere := func(ctx context.Context, c *endpoint.Call) (any, error) {
		m, _ := c.Message()
		s := endpoint.NewCall(&spec, c.Subject, endpoint.ServerSide)
		s.Header, s.Attempt = c.Header, c.Attempt
		s.SetTrace(c.Trace())
		return mw(func(ctx context.Context, _ *endpoint.Call) (any, error) {
			if r := m.(*addRequest); r.A > 0 {
				return sum(ctx, &addRequest{A: r.A - 1})
			}
			return nil, endpoint.Unavailable
		})(ctx, s)
	}
	sum = caller(transport(serveHere), "svc.add", twice(mw, again(2)))
	_, err := sum(t.Context(), &addRequest{A: 1})
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, tree(tp.take()), `client svc/add unavailable
  client svc/add attempt unavailable
    server svc/add unavailable
      client svc/add unavailable
        client svc/add attempt unavailable
          server svc/add unavailable
        client svc/add attempt unavailable
          server svc/add unavailable
  client svc/add attempt unavailable
    server svc/add unavailable
      client svc/add unavailable
        client svc/add attempt unavailable
          server svc/add unavailable
        client svc/add attempt unavailable
          server svc/add unavailable
`)
}
