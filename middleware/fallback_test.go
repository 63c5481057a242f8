package middleware_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// makeshift answers every failure with 42.
func makeshift(context.Context, *endpoint.Call, error) (any, error) {
	return &addResponse{Sum: 42}, nil
}

func TestFallbackCodes(t *testing.T) {
	falls := map[endpoint.Code]bool{
		endpoint.Unavailable: true, endpoint.DeadlineExceeded: true, endpoint.ResourceExhausted: true,
		endpoint.Internal: true, endpoint.Unknown: true, endpoint.DataLoss: true,
	}
	for code := endpoint.Canceled; code <= endpoint.Unauthenticated; code++ {
		for _, outcome := range []endpoint.Outcome{endpoint.NotSent, endpoint.NotExecuted, endpoint.MaybeExecuted, endpoint.Executed} {
			resp, err := caller(fail(code.New("").WithOutcome(outcome)), middleware.Fallback(makeshift))(t.Context(), &addRequest{})
			if falls[code] {
				assert.NoError(t, err, code.String())
				assert.Equal(t, resp.Sum, 42)
			} else {
				assert.ErrorIs(t, err, code)
				assert.Equal(t, endpoint.OutcomeOf(err), outcome)
			}
		}
	}
	resp, err := caller(ok, middleware.Fallback(makeshift))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 3, "what goes well stays")
}

func TestFallbackContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := false
		mw := middleware.Fallback(func(ctx context.Context, _ *endpoint.Call, _ error) (any, error) {
			asked = true
			assert.True(t, ctx.Err() != nil, "its context has ended")
			return &addResponse{Sum: 42}, nil
		})
		late, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		resp, err := caller(hang, mw)(late, &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, resp.Sum, 42)
		assert.True(t, asked)

		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		asked = false
		_, err = caller(after(2*time.Second, errDraining), mw)(gone, &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonDraining)
		assert.True(t, !asked, "who gave up wants no answer")
	})
}

func TestFallbackErrors(t *testing.T) {
	own := errors.New("none in stock either")
	_, err := caller(fail(errDraining), middleware.Fallback(func(context.Context, *endpoint.Call, error) (any, error) { return nil, own }))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, own)
	_, err = caller(fail(errDraining), middleware.Fallback(func(_ context.Context, _ *endpoint.Call, err error) (any, error) {
		assert.Equal(t, reasonOf(err), endpoint.ReasonDraining)
		return &addResponse{}, nil
	}))(t.Context(), &addRequest{})
	assert.NoError(t, err)
	_, err = caller(fail(errDraining), middleware.Fallback(func(_ context.Context, _ *endpoint.Call, err error) (any, error) { return nil, err }))(t.Context(), &addRequest{})
	assert.Equal(t, reasonOf(err), endpoint.ReasonDraining)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
}

func TestFallbackReplies(t *testing.T) {
	call := func(spec *endpoint.Spec, reply any) (any, error) {
		mw := middleware.Fallback(func(context.Context, *endpoint.Call, error) (any, error) { return reply, nil })
		return mw(fail(errDraining))(t.Context(), endpoint.NewCall(spec, "svc.add", endpoint.ClientSide))
	}
	byPointer := endpoint.New(add).Spec()
	byValue := endpoint.New(func(context.Context, addRequest) (addResponse, error) { return addResponse{}, nil }).Spec()
	stream := endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] { return nil }).Spec()
	for _, tc := range []struct {
		spec  *endpoint.Spec
		reply any
		text  string
	}{
		{byPointer, &addResponse{}, ""},
		{byValue, &addResponse{}, ""},
		{stream, nil, ""},
		{&endpoint.Spec{}, &addRequest{}, ""},
		{byPointer, addResponse{}, "middleware.Fallback: the function replied with middleware_test.addResponse, want *middleware_test.addResponse"},
		{byValue, addResponse{}, "replied with middleware_test.addResponse, want *middleware_test.addResponse"},
		{byPointer, &addRequest{}, "replied with *middleware_test.addRequest"},
		{byPointer, nil, "replied with <nil>"},
		{byPointer, (*addResponse)(nil), "replied with *middleware_test.addResponse"},
		{stream, &addResponse{}, "want nil, since the reply is a stream"},
		{&endpoint.Spec{}, 3, "want a pointer"},
	} {
		reply, err := call(tc.spec, tc.reply)
		if tc.text == "" {
			assert.NoError(t, err)
			assert.Equal(t, reply, tc.reply)
			continue
		}
		assert.ErrorIs(t, err, endpoint.Internal)
		assert.Contains(t, err.Error(), tc.text)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted, "that of the call")
		assert.Equal(t, reasonOf(errors.Unwrap(err)), endpoint.ReasonDraining)
	}
}

func TestFallbackServer(t *testing.T) {
	c := newCall(endpoint.ServerSide)
	_, err := middleware.Fallback(makeshift)(fail(errDraining))(t.Context(), c)
	assert.Equal(t, reasonOf(err), endpoint.ReasonDraining, "handlers pass through")
}

func TestFallbackStreams(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.many", endpoint.NewServerStream(endpoint.Emit(func(_ context.Context, r *addRequest, send func(*addResponse) error) error {
		for range r.A {
			if err := send(&addResponse{Sum: 1}); err != nil {
				return err
			}
		}
		return endpoint.Unavailable.New("")
	})))
	many := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.many", middleware.Fallback(func(_ context.Context, c *endpoint.Call, _ error) (any, error) {
		for range 2 {
			if err := c.Send(&addResponse{Sum: 42}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}))
	collect := func(r *addRequest) (sums []int, err error) {
		for v, e := range many(t.Context(), r) {
			if e != nil {
				return sums, e
			}
			sums = append(sums, v.Sum)
		}
		return sums, nil
	}
	sums, err := collect(&addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, sums, []int{42, 42})
	sums, err = collect(&addRequest{A: 1})
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, sums, []int{1}, "an item has passed")
}

// A Cache around it does not keep the makeshift, unless the function says so; what Retry does inside is seen there only.
func TestFallbackInsideOfCache(t *testing.T) {
	for _, tc := range []struct {
		control string
		asked   int
	}{{"", 2}, {"max-age=1", 1}} {
		asked := 0
		call := caller(fail(errDraining), endpoint.ReadOnly(), middleware.Cache(middleware.CachePolicy{}),
			middleware.Fallback(func(_ context.Context, c *endpoint.Call, _ error) (any, error) {
				asked++
				if tc.control != "" {
					c.Reply.Set("cache-control", tc.control)
				}
				return &addResponse{Sum: 42}, nil
			}))
		for range 2 {
			ctx, report := endpoint.Observe(t.Context())
			resp, err := call(ctx, &addRequest{})
			assert.NoError(t, err)
			assert.Equal(t, resp.Sum, 42)
			if tc.control == "" {
				assert.Equal(t, report.Reply.Get("Cache-Control"), "no-store")
			}
		}
		assert.Equal(t, asked, tc.asked)
	}
}

func TestFallbackOfPayloads(t *testing.T) {
	call := endpoint.Caller[*addRequest, *codec.Payload](transport(fail(errNobody)), "svc.add", middleware.Fallback(func(context.Context, *endpoint.Call, error) (any, error) {
		return &codec.Payload{MediaType: "text/plain", Data: []byte("soon")}, nil
	}))
	p, err := call(t.Context(), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, string(p.Data), "soon")
}
