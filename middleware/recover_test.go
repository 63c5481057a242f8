package middleware_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// panics is a middleware with a bug.
func panics(endpoint.Handler) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { panic("secret") }
}

func TestRecoverServer(t *testing.T) {
	m := endpoint.NewMux()
	var seen error
	watch := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			seen = err
			return reply, err
		}
	}
	serve(t, m, "svc.add", endpoint.New(add, endpoint.With(watch, middleware.Recover(), panics)))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	e, _ := errors.AsType[*endpoint.Error](err)
	assert.Equal(t, e.Code, endpoint.Internal)
	assert.Equal(t, e.Message, "")
	assert.Equal(t, e.Reason(), endpoint.ReasonPanic)
	assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
	assert.True(t, e.Remote(), "remote")
	cause, ok := errors.AsType[*endpoint.PanicError](seen)
	assert.True(t, ok, "a PanicError at the service")
	assert.Equal(t, cause.Value, any("secret"))
	assert.Contains(t, string(cause.Stack), "recover_test.go")
}

func TestRecoverAfterHandler(t *testing.T) {
	m := endpoint.NewMux()
	late := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			_, _ = next(ctx, c)
			panic("late")
		}
	}
	serve(t, m, "svc.add", endpoint.New(add, endpoint.With(middleware.Recover(), late)))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.Executed)
}

func TestRecoverClient(t *testing.T) {
	_, err := caller(ok, middleware.Recover(), endpoint.Middleware(panics))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Internal)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)
	_, ok := errors.AsType[*endpoint.PanicError](err)
	assert.True(t, ok, "a PanicError")
}

func count(_ context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
	return func(yield func(*addResponse, error) bool) {
		for i := range r.A {
			if !yield(&addResponse{Sum: i}, nil) {
				return
			}
		}
	}
}

func TestRecoverLeavesTheLoopBodyAlone(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.count", endpoint.NewServerStream(count))
	stream := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count", middleware.Recover())
	defer func() { assert.Equal(t, recover(), any("mine")) }()
	for range stream(t.Context(), &addRequest{A: 3}) {
		panic("mine")
	}
	t.Fatal("the panic was swallowed")
}

func TestRecoverStreamMiddleware(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.count", endpoint.NewServerStream(count, endpoint.With(middleware.Recover(), panics)))
	for _, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count")(t.Context(), &addRequest{A: 3}) {
		assert.ErrorIs(t, err, endpoint.Internal)
		return
	}
	t.Fatal("no error")
}
