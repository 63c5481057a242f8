package middleware_test

import (
	"context"
	"errors"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// kitFunc and kitMiddleware are the types of Go kit's endpoint package.
type (
	kitFunc       func(ctx context.Context, request any) (response any, err error)
	kitMiddleware func(kitFunc) kitFunc
)

type kitName string

var errLimited = errors.New("rate limit exceeded")

func TestFromKitOrderAndValues(t *testing.T) {
	var log []string
	note := func(name string) kitMiddleware {
		return func(next kitFunc) kitFunc {
			log = append(log, "made "+name)
			return func(ctx context.Context, request any) (any, error) {
				log = append(log, name)
				assert.Equal(t, request, any(&addRequest{A: 1, B: 2}))
				resp, err := next(context.WithValue(ctx, kitName(name), true), request)
				assert.Equal(t, resp, any(&addResponse{Sum: 3}))
				return resp, err
			}
		}
	}
	m := endpoint.NewMux()
	handler := func(ctx context.Context, r *addRequest) (*addResponse, error) {
		assert.Equal(t, ctx.Value(kitName("a")), any(true))
		assert.Equal(t, ctx.Value(kitName("b")), any(true))
		assert.True(t, endpoint.FromContext(ctx) != nil, "the call in the context")
		return add(ctx, r)
	}
	serve(t, m, "svc.add", endpoint.New(handler, middleware.FromKit(note("a"), note("b")), middleware.FromKit(note("c"))))
	call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.FromKit(note("client")))
	for range 2 {
		resp, err := call(t.Context(), &addRequest{A: 1, B: 2})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 3)
	}
	assert.Equal(t, log, []string{"made c", "made b", "made a", "made client", "client", "a", "b", "c", "client", "a", "b", "c"})
}

func TestFromKitReplacesTheReply(t *testing.T) {
	twice := func(next kitFunc) kitFunc {
		return func(ctx context.Context, request any) (any, error) {
			resp, err := next(ctx, request)
			if err != nil {
				return nil, err
			}
			return &addResponse{Sum: 2 * resp.(*addResponse).Sum}, nil
		}
	}
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(add, middleware.FromKit(twice)))
	resp, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.FromKit(twice))(t.Context(), &addRequest{A: 1, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 12)
}

func TestFromKitMisuse(t *testing.T) {
	for name, f := range map[string]func(kitFunc) kitFunc{
		"nil context": func(next kitFunc) kitFunc {
			return func(_ context.Context, r any) (any, error) { return next(nil, r) }
		},
		"did not pass on its context": func(next kitFunc) kitFunc {
			return func(_ context.Context, r any) (any, error) { return next(context.Background(), r) }
		},
		"not the request": func(next kitFunc) kitFunc {
			return func(ctx context.Context, _ any) (any, error) { return next(ctx, []int{1}) }
		},
		"next twice": func(next kitFunc) kitFunc {
			return func(ctx context.Context, r any) (any, error) {
				_, _ = next(ctx, r)
				return next(ctx, r)
			}
		},
	} {
		_, err := caller(ok, middleware.FromKit(f))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.Internal)
		assert.Contains(t, err.Error(), name)
	}
}

func TestFromKitErrors(t *testing.T) {
	refuse := func(err error) func(kitFunc) kitFunc {
		return func(kitFunc) kitFunc {
			return func(context.Context, any) (any, error) { return nil, err }
		}
	}
	_, err := caller(ok, middleware.FromKit(refuse(errLimited)))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, errLimited)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
	assert.Equal(t, endpoint.CodeOf(err), endpoint.Unknown)

	own := endpoint.ResourceExhausted.New("mine")
	_, err = caller(ok, middleware.FromKit(refuse(own)))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.ResourceExhausted)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)

	_, err = caller(ok, middleware.FromKit(refuse(errors.Join(errLimited, own))))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.ResourceExhausted)
	assert.ErrorIs(t, err, errLimited)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)

	after := func(next kitFunc) kitFunc {
		return func(ctx context.Context, r any) (any, error) {
			_, _ = next(ctx, r)
			return nil, errLimited
		}
	}
	_, err = caller(ok, middleware.FromKit(after))(t.Context(), &addRequest{})
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)

	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(add, middleware.FromKit(refuse(errLimited))))
	_, err = endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
	assert.Equal(t, err.Error(), "unknown")
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
}

func TestFromKitDecodes(t *testing.T) {
	called := false
	watch := func(next kitFunc) kitFunc {
		return func(ctx context.Context, r any) (any, error) {
			called = true
			return next(ctx, r)
		}
	}
	m := endpoint.NewMux()
	serve(t, m, "svc.add", endpoint.New(add, middleware.FromKit(watch)))
	_, err := endpoint.Caller[*struct{ A string }, *addResponse](m, "svc.add")(t.Context(), &struct{ A string }{"x"})
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
	assert.True(t, !called, "called")
}

func TestFromKitStreams(t *testing.T) {
	var requests []any
	watch := func(next kitFunc) kitFunc {
		return func(ctx context.Context, r any) (any, error) {
			requests = append(requests, r)
			resp, err := next(ctx, r)
			requests = append(requests, resp)
			return resp, err
		}
	}
	m := endpoint.NewMux()
	serve(t, m, "svc.count", endpoint.NewServerStream(count, middleware.FromKit(watch)))
	serve(t, m, "svc.total", endpoint.NewClientStream(total, middleware.FromKit(watch)))
	n := 0
	for _, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count")(t.Context(), &addRequest{A: 2}) {
		assert.NoError(t, err)
		n++
	}
	assert.Equal(t, n, 2)
	resp, err := endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "svc.total")(t.Context(), items(1, 2, 3))
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 6)
	assert.Equal(t, requests, []any{&addRequest{A: 2}, nil, nil, &addResponse{Sum: 6}})
}
