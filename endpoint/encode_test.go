package endpoint_test

import (
	"context"
	"errors"
	"iter"
	"math"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type ratio struct{ Sum float64 }

// forward lets errors of other calls cross whole.
func forward(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		reply, err := next(ctx, c)
		if e, ok := errors.AsType[*endpoint.Error](err); ok {
			return nil, e.AsAuthored()
		}
		return reply, err
	}
}

// What a caller can't encode or decode it says on its side, in full. Nothing of it reaches a peer, be it forwarded on
// purpose.
func TestFaultsOfThisSideSayWhy(t *testing.T) {
	m := serve(t, endpoint.New(func(context.Context, *addRequest) (*ratio, error) { return &ratio{0.5}, nil }))
	upload := endpoint.ClientStreamCaller[*ratio, *addResponse](serve(t, endpoint.NewClientStream(
		func(_ context.Context, in iter.Seq2[*ratio, error]) (*addResponse, error) {
			for _, err := range in {
				return nil, err
			}
			return fixed, nil
		})), "svc.op")
	nan := &ratio{math.NaN()}
	for name, c := range map[string]struct {
		call  func(context.Context) error
		words []string
	}{
		"request": {func(ctx context.Context) error {
			_, err := endpoint.Caller[*ratio, *addResponse](m, "svc.op")(ctx, nan)
			return err
		}, []string{"the request *endpoint_test.ratio can't be encoded", "NaN"}},
		"item": {func(ctx context.Context) error {
			_, err := upload(ctx, func(yield func(*ratio, error) bool) { yield(nan, nil) })
			return err
		}, []string{"the item *endpoint_test.ratio can't be encoded", "NaN"}},
		"reply": {func(ctx context.Context) error {
			_, err := caller(m)(ctx, request)
			return err
		}, []string{"the reply can't be decoded as *endpoint_test.addResponse", `"Sum"`, "want an integer"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, c.call(t.Context()).Error(), c.words...)
			handler := func(ctx context.Context, _ *addRequest) (*addResponse, error) { return nil, c.call(ctx) }
			for _, ep := range []*endpoint.Endpoint{endpoint.New(handler), endpoint.New(handler, endpoint.Middleware(forward))} {
				_, err := caller(serve(t, ep))(t.Context(), request)
				e, ok := errors.AsType[*endpoint.Error](err)
				assert.True(t, ok && e.Remote())
				assert.Equal(t, e.Message, "")
			}
		})
	}
}
