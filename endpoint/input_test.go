package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// What an input says of another call is not true of this one, whose handler took three items before.
func TestInputThatFailsWithAnotherCallsError(t *testing.T) {
	why := errors.New("why")
	own := endpoint.Aborted.Wrap(why, "mine").WithOutcome(endpoint.NotExecuted).
		WithReason(endpoint.ReasonNoResponders).WithRetryAfter(time.Second)
	_, received := endpoint.Caller[*addRequest, *addResponse](endpoint.NewMux(), "nobody.there")(t.Context(), request)
	asError(t, received, endpoint.Unavailable, endpoint.NotExecuted)
	for name, c := range map[string]struct {
		input error
		code  endpoint.Code
		text  string
		is    error
	}{
		"of a caller":          {received, endpoint.Canceled, "the input failed", received},
		"of a caller, wrapped": {fmt.Errorf("ctx: %w", received), endpoint.Canceled, "the input failed", received},
		"a peer's verdict":     {own.AsRemote(), endpoint.Canceled, "the input failed", why},
		"the input's own":      {own, endpoint.Aborted, "mine", why},
		"its own, wrapped":     {fmt.Errorf("ctx: %w", own), endpoint.Aborted, "mine", own},
		"its own words for it": {endpoint.Aborted.Wrap(received, "mine"), endpoint.Aborted, "mine", received},
	} {
		t.Run(name, func(t *testing.T) {
			in := func(yield func(*addRequest, error) bool) {
				for range 3 {
					if !yield(request, nil) {
						return
					}
				}
				yield(nil, c.input)
			}
			ends := make(chan error, 1)
			_, err := clientStream(t, spy(ends))(t.Context(), in)
			_, err2 := collect(bidiStream(t, echo)(t.Context(), in))
			assert.Equal(t, endpoint.CodeOf(<-ends), endpoint.Canceled)
			for _, err := range []error{err, err2} {
				e := asError(t, err, c.code, endpoint.MaybeExecuted)
				assert.Equal(t, e.Message, c.text)
				assert.Equal(t, e.Reason(), "")
				assert.True(t, !e.Remote())
				assert.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestNilInput(t *testing.T) {
	never := func(context.Context, inSeq) (*addResponse, error) {
		t.Error("the handler was entered")
		return &addResponse{}, nil
	}
	_, err := clientStream(t, never, endpoint.With(swallow))(t.Context(), nil)
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, "nil iterator")

	sums, err := collect(bidiStream(t, func(ctx context.Context, _ inSeq) outSeq {
		_, _ = never(ctx, nil)
		return count(ctx, request)
	})(t.Context(), nil))
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, "nil iterator")
	assert.Equal(t, len(sums), 0)
}

// A nil interface is no request, whatever its codec would make of it; nil slices and maps are values like others.
func TestNilRequestsOfOtherTypes(t *testing.T) {
	anything := serve(t, endpoint.New(func(_ context.Context, r any) (*addResponse, error) { return fixed, nil }))
	dynamic := endpoint.Caller[any, *addResponse](anything, "svc.op")
	_, err := dynamic(t.Context(), nil)
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, "nil interface {}")
	for _, r := range []any{7, []int(nil), map[string]any(nil), struct{}{}} {
		_, err := dynamic(t.Context(), r)
		assert.NoError(t, err)
	}
	_, err = endpoint.Caller[[]int, *addResponse](anything, "svc.op")(t.Context(), nil)
	assert.NoError(t, err)
	_, err = endpoint.Caller[map[string]int, *addResponse](anything, "svc.op")(t.Context(), nil)
	assert.NoError(t, err)

	chat := endpoint.BidiStreamCaller[any, *addResponse](serve(t, endpoint.NewBidiStream(echo)), "svc.op")
	_, err = collect(chat(t.Context(), func(yield func(any, error) bool) { _ = yield(request, nil) && yield(nil, nil) }))
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.MaybeExecuted).Message, "nil interface {}")

	// A peer's null is a value of such a type, on both sides.
	null := serve(t, endpoint.New(func(_ context.Context, r any) (any, error) { return r, nil }))
	got, err := endpoint.Caller[*codec.Payload, any](null, "svc.op")(t.Context(), &codec.Payload{Data: []byte("null")})
	assert.NoError(t, err)
	assert.True(t, got == nil)
}
