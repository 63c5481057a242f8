package endpoint_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The wrong middlewares have names, which the cause of the error must tell.

func callsTwice(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		_, _ = next(ctx, c)
		return next(ctx, c)
	}
}

// hidesTwice returns what the first call of next gave.
func hidesTwice(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		reply, err := next(ctx, c)
		_, _ = next(ctx, c)
		return reply, err
	}
}

func callsNever(endpoint.Handler) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { return nil, nil }
}

func repliesWrong(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		_, err := next(ctx, c)
		return "a string", err
	}
}

func repliesNil(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		_, err := next(ctx, c)
		return (*addResponse)(nil), err
	}
}

func callsWithNone(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, _ *endpoint.Call) (any, error) { return next(ctx, nil) }
}

func panics(endpoint.Handler) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { panic("a bug") }
}

// whole is the text of an error and all of its causes.
func whole(err error) string {
	var b bytes.Buffer
	for ; err != nil; err = errors.Unwrap(err) {
		b.WriteString(err.Error() + "\n")
	}
	return b.String()
}

func TestWrongMiddlewareIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mw      endpoint.Middleware
		culprit string
		ran     int // how often the function may have run
	}{
		{"twice", callsTwice, "endpoint_test.callsTwice.func1 called next twice", 1},
		{"twice, hidden", hidesTwice, "endpoint_test.hidesTwice.func1 called next twice", 1},
		{"never", callsNever, "endpoint_test.callsNever.func1 replied with <nil>, want *endpoint_test.addResponse", 0},
		{"no call", callsWithNone, "endpoint_test.callsWithNone.func1 ", 0},
		{"wrong type", repliesWrong, "endpoint_test.repliesWrong.func1 replied with string, want *endpoint_test.addResponse", 1},
		{"typed nil", repliesNil, "endpoint_test.repliesNil.func1 replied with *endpoint_test.addResponse", 1},
		{"panic", panics, "panic in endpoint_test.panics.func1: a bug", 0},
	} {
		for place, mws := range map[string][]endpoint.Middleware{
			"alone": {tc.mw}, "outermost": {tc.mw, noop, noop}, "between": {noop, tc.mw, noop}, "innermost": {noop, noop, tc.mw},
			"nested": {noop, endpoint.Chain(noop, tc.mw), noop}, "one side": {noop, endpoint.OnClient(tc.mw), endpoint.OnServer(tc.mw)},
		} {
			t.Run(tc.name+"/"+place, func(t *testing.T) {
				ran := 0
				counted := func(ctx context.Context, r *addRequest) (*addResponse, error) {
					ran++
					return add(ctx, r)
				}
				_, err := caller(serve(t, endpoint.New(counted)), endpoint.With(mws...))(t.Context(), request)
				assert.ErrorIs(t, err, endpoint.Internal)
				assert.Contains(t, whole(err), tc.culprit)
				assert.True(t, ran <= tc.ran, "not executed again")

				ran = 0
				var cause error
				spy := func(next endpoint.Handler) endpoint.Handler {
					return func(ctx context.Context, c *endpoint.Call) (_ any, err error) {
						defer func() {
							if p := recover(); p != nil {
								err = endpoint.Recovered(p)
							}
							cause = err
						}()
						return next(ctx, c)
					}
				}
				_, err = caller(serve(t, endpoint.New(counted, endpoint.With(mws...)).With(spy)))(t.Context(), request)
				assert.ErrorIs(t, err, endpoint.Internal)
				if tc.name != "twice, hidden" { // which the outermost middleware does not see
					assert.Contains(t, whole(cause), tc.culprit)
				}
				assert.True(t, ran <= tc.ran, "not executed again")
				want := endpoint.NotExecuted
				if tc.ran > 0 {
					want = endpoint.Executed
				}
				assert.Equal(t, endpoint.OutcomeOf(err), want)
			})
		}
	}
}

func TestAttemptsMayCallNextAgain(t *testing.T) {
	again := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			_, _ = next(ctx, c)
			_, _ = next(ctx, c.Retry())
			a := c.Retry()
			reply, err := next(ctx, a)
			c.Adopt(a)
			return reply, err
		}
	}
	for _, mws := range [][]endpoint.Middleware{{again}, {noop, again, noop}, {again, again}} {
		resp, err := caller(serve(t, endpoint.New(add)), endpoint.With(mws...))(t.Context(), request)
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 3)
	}
	_, err := caller(serve(t, endpoint.New(add)), endpoint.With(again, hidesTwice))(t.Context(), request)
	assert.ErrorIs(t, err, endpoint.Internal, "a fault inside of an attempt")
}

func TestStreamThatAMiddlewareEnds(t *testing.T) {
	ones := func(_ context.Context, _ *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) { yield(&addResponse{Sum: 1}, nil) }
	}
	collect := func(mw endpoint.Middleware) (n int, err error) {
		m := serve(t, endpoint.NewServerStream(ones, endpoint.With(noop, mw)))
		for _, e := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op")(t.Context(), request) {
			if err = e; err == nil {
				n++
			}
		}
		return n, err
	}
	_, err := collect(callsNever)
	assert.ErrorIs(t, err, endpoint.Internal)
	_, err = collect(callsTwice)
	assert.ErrorIs(t, err, endpoint.Internal)
	n, err := collect(func(endpoint.Handler) endpoint.Handler { // which answers by itself
		return func(_ context.Context, c *endpoint.Call) (any, error) { return nil, c.Send(&addResponse{Sum: 2}) }
	})
	assert.NoError(t, err)
	assert.Equal(t, n, 1)
}

func TestPanicOfAClientsMiddlewareStaysInTheCall(t *testing.T) {
	m := serve(t, endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
		return func(func(*addResponse, error) bool) {}
	}))
	var got []error
	for _, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.add", endpoint.With(panics))(t.Context(), request) {
		got = append(got, err)
	}
	assert.Equal(t, len(got), 1)
	assert.ErrorIs(t, got[0], endpoint.Internal)
	p, ok := errors.AsType[*endpoint.PanicError](got[0])
	assert.True(t, ok && slices.Equal([]byte("a bug"), []byte(p.Value.(string))), "the panic is the cause")
}

func TestFaulty(t *testing.T) {
	for _, cause := range []error{errors.New("Limit is negative"), nil} {
		ran := false
		ep := endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			ran = true
			return add(ctx, r)
		})
		_, err := caller(serve(t, ep), endpoint.Faulty(cause))(t.Context(), request)
		assert.ErrorIs(t, err, endpoint.InvalidArgument)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
		if cause != nil {
			assert.ErrorIs(t, err, cause)
			assert.Contains(t, err.Error(), cause.Error())
		}
		_, err = caller(serve(t, ep.With(endpoint.Faulty(cause))))(t.Context(), request)
		assert.ErrorIs(t, err, endpoint.Internal)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
		assert.True(t, !strings.Contains(err.Error(), "negative") && !ran, "nobody's business, and not executed")
	}
}
