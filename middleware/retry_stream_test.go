package middleware_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestRetryStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		tries := 0
		serve(t, m, "svc.count", endpoint.NewServerStream(func(_ context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
			return func(yield func(*addResponse, error) bool) {
				tries++
				if tries == 1 {
					yield(nil, endpoint.Unavailable.New("not yet"))
					return
				}
				if yield(&addResponse{}, nil) {
					yield(nil, endpoint.Unavailable.New("broken off"))
				}
			}
		}))
		stream := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count", endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}))
		n := 0
		for _, err := range stream(t.Context(), &addRequest{}) {
			if n++; n == 2 {
				assert.Contains(t, err.Error(), "broken off")
			}
		}
		assert.Equal(t, n, 2)
		assert.Equal(t, tries, 2, "once an item passed there is no retry")
	})
}

func TestRetryUploadCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		tries := 0
		serve(t, m, "svc.total", endpoint.NewClientStream(func(_ context.Context, in iter.Seq2[*addRequest, error]) (*addResponse, error) {
			tries++
			for range in {
				break
			}
			return nil, endpoint.Unavailable.New("x")
		}))
		upload := endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "svc.total", endpoint.Idempotent(), middleware.Retry(middleware.RetryPolicy{}))
		_, err := upload(t.Context(), items(1, 2, 3))
		assert.ErrorIs(t, err, endpoint.Unavailable)
		assert.Equal(t, tries, 1)
	})
}

func TestRetryThroughMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.Retry(middleware.RetryPolicy{}))
		time.AfterFunc(time.Millisecond, func() { serve(t, m, "svc.add", endpoint.New(add)) })
		ctx, report := endpoint.Observe(t.Context())
		resp, err := call(ctx, &addRequest{A: 1, B: 2})
		assert.NoError(t, err, "a service that has just subscribed")
		assert.Equal(t, resp.Sum, 3)
		assert.Equal(t, report.Attempts, 2)
		assert.Equal(t, report.ReplySize, 9, "of the winner, which was adopted")
	})
}
