package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func total(_ context.Context, in iter.Seq2[*addRequest, error]) (*addResponse, error) {
	sum := 0
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		sum += r.A
	}
	return &addResponse{Sum: sum}, nil
}

func items(as ...int) iter.Seq2[*addRequest, error] {
	return func(yield func(*addRequest, error) bool) {
		for _, a := range as {
			if !yield(&addRequest{A: a}, nil) {
				return
			}
		}
	}
}

type quota struct{ Left int }

// chain serves a backend and a front that calls it, and returns the front's caller.
func chain(t *testing.T, backend error, wrap func(error) error, opts ...endpoint.Option) endpoint.Unary[*addRequest, *addResponse] {
	t.Helper()
	m := endpoint.NewMux()
	if backend != nil {
		serve(t, m, "back.add", endpoint.New(func(context.Context, *addRequest) (*addResponse, error) { return nil, backend }))
	}
	call := endpoint.Caller[*addRequest, *addResponse](m, "back.add")
	serve(t, m, "front.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		resp, err := call(ctx, r)
		if err != nil {
			return nil, wrap(err)
		}
		return resp, nil
	}, opts...))
	return endpoint.Caller[*addRequest, *addResponse](m, "front.add")
}

func TestForward(t *testing.T) {
	same := func(err error) error { return err }
	wrapped := func(err error) error { return fmt.Errorf("secret: %w", err) }
	foreign := func(error) error { return errors.New("secret") }
	authored := endpoint.NotFound.New("no such thing").With(quota{Left: 2}).WithRetryAfter(time.Second)
	for _, tc := range []struct {
		name    string
		backend error
		wrap    func(error) error
		forward bool
		code    endpoint.Code
		message string
		reason  string
	}{
		{"by default without text", authored, same, false, endpoint.Internal, "", ""},
		{"whole", authored, same, true, endpoint.NotFound, "no such thing", ""},
		{"wrapped by default", authored, wrapped, false, endpoint.Internal, "", ""},
		{"wrapped", authored, wrapped, true, endpoint.NotFound, "no such thing", ""},
		{"the transport's own", nil, same, true, endpoint.Unavailable, "nobody serves back.add", endpoint.ReasonNoResponders},
		{"of another type", authored, foreign, true, endpoint.Unknown, "", ""},
		{"a code without text", errors.New("secret"), same, true, endpoint.Unknown, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var opts []endpoint.Option
			if tc.forward {
				opts = append(opts, middleware.Forward())
			}
			_, err := chain(t, tc.backend, tc.wrap, opts...)(t.Context(), &addRequest{})
			e, _ := errors.AsType[*endpoint.Error](err)
			assert.Equal(t, e.Code, tc.code)
			assert.Equal(t, e.Message, tc.message)
			assert.Equal(t, e.Reason(), tc.reason)
			assert.Equal(t, e.Outcome(), endpoint.Executed)
			if tc.code == endpoint.NotFound {
				q, ok := endpoint.DetailOf[quota](err)
				assert.True(t, ok, "a detail")
				assert.Equal(t, q.Left, 2)
				assert.Equal(t, e.RetryAfter, time.Second)
			}
		})
	}
}

func TestForwardOutermostAndSuccess(t *testing.T) {
	m := endpoint.NewMux()
	m.Use(middleware.Forward()) // on callers, too, where it passes through
	serve(t, m, "svc.add", endpoint.New(add))
	resp, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{A: 1, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 3)
}

func TestForwardLeavesForeignErrors(t *testing.T) {
	m := endpoint.NewMux()
	refuse := func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) { return nil, errors.New("secret") }
	}
	serve(t, m, "svc.add", endpoint.New(add, endpoint.With(middleware.Forward(), refuse)))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.Equal(t, err.Error(), "unknown")
}

func TestForwardStream(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "back.count", endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) { yield(nil, endpoint.OutOfRange.New("past the end")) }
	}))
	back := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "back.count")
	serve(t, m, "front.count", endpoint.NewServerStream(back, middleware.Forward()))
	for _, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "front.count")(t.Context(), &addRequest{}) {
		assert.ErrorIs(t, err, endpoint.OutOfRange)
		assert.Contains(t, err.Error(), "past the end")
		return
	}
	t.Fatal("no error")
}
