package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestTimeoutClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := caller(hang, middleware.Timeout(time.Second))(t.Context(), &addRequest{})
		assert.Equal(t, time.Since(start), time.Second)
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.DeadlineExceeded)
		assert.Equal(t, e.Reason(), endpoint.ReasonTimeout)
		assert.Equal(t, e.Outcome(), endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, errors.Unwrap(err), context.DeadlineExceeded)
		assert.Contains(t, errors.Unwrap(err).Error(), "the timeout of 1s passed")
		timeout, ok := errors.AsType[interface {
			error
			Timeout() bool
		}](err)
		assert.True(t, ok && timeout.Timeout(), "a timeout as net.Error has it")
	})
}

func TestTimeoutTable(t *testing.T) {
	refused := endpoint.DeadlineExceeded.New("").WithReason(endpoint.ReasonExpired).WithOutcome(endpoint.NotExecuted)
	for _, tc := range []struct {
		name    string
		outer   time.Duration
		handler endpoint.Handler
		took    time.Duration
		code    endpoint.Code
		reason  string
		outcome endpoint.Outcome
	}{
		{"outer is tighter", time.Second, hang, time.Second, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted},
		{"the peer's own deadline", 0, fail(endpoint.DeadlineExceeded.New("theirs")), 0, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted},
		{"a better reason stays", 0, after(2*time.Second, refused), 2 * time.Second, endpoint.DeadlineExceeded, endpoint.ReasonExpired, endpoint.NotExecuted},
		{"its outcome stays", 0, after(2*time.Second, refused.WithReason("")), 2 * time.Second, endpoint.DeadlineExceeded, endpoint.ReasonTimeout, endpoint.NotExecuted},
		{"another error stays", 0, after(3*time.Second, errDraining), 3 * time.Second, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.NotExecuted},
		{"a bare context error", 0, after(2*time.Second, context.DeadlineExceeded), 2 * time.Second, endpoint.DeadlineExceeded, endpoint.ReasonTimeout, endpoint.MaybeExecuted},
		{"a late reply is a reply", 0, after(3*time.Second, nil), 3 * time.Second, endpoint.OK, "", endpoint.Executed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.outer > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.outer)
					defer cancel()
				}
				start := time.Now()
				_, err := caller(tc.handler, middleware.Timeout(2*time.Second))(ctx, &addRequest{})
				assert.Equal(t, time.Since(start), tc.took)
				assert.Equal(t, endpoint.CodeOf(err), tc.code)
				assert.Equal(t, endpoint.OutcomeOf(err), tc.outcome)
				assert.Equal(t, reasonOf(err), tc.reason)
			})
		})
	}
}

// after answers after a while whatever the context says.
func after(d time.Duration, err error) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) {
		time.Sleep(d)
		if err != nil {
			return nil, err
		}
		return &addResponse{}, nil
	}
}

func reasonOf(err error) string {
	if e, ok := errors.AsType[*endpoint.Error](err); ok {
		return e.Reason()
	}
	return ""
}

func TestTimeoutServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		stuck := func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			<-ctx.Done()
			assert.Equal(t, context.Cause(ctx).Error(), "the timeout of 1s passed")
			return nil, ctx.Err()
		}
		serve(t, m, "svc.add", endpoint.New(stuck, middleware.Timeout(time.Second)))
		start := time.Now()
		_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
		assert.Equal(t, time.Since(start), time.Second)
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.DeadlineExceeded)
		assert.Equal(t, e.Reason(), endpoint.ReasonTimeout)
		assert.Equal(t, e.Outcome(), endpoint.Executed)
		assert.True(t, e.Remote(), "remote")
	})
}

func TestTimeoutServerBareError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		wait := func(endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, _ *endpoint.Call) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		serve(t, m, "svc.add", endpoint.New(add, endpoint.With(middleware.Timeout(time.Second), wait)))
		_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonTimeout)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
	})
}

func TestTimeoutCanceledByCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err := caller(hang, middleware.Timeout(time.Second))(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, reasonOf(err), "")
	})
}

func TestTimeoutLeavesStreamsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		m.Use(middleware.Timeout(time.Second))
		slow := endpoint.Emit(func(_ context.Context, _ *addRequest, send func(*addResponse) error) error {
			for range 3 {
				time.Sleep(time.Second)
				if err := send(&addResponse{}); err != nil {
					return err
				}
			}
			return nil
		})
		serve(t, m, "svc.slow", endpoint.NewServerStream(slow))
		n := 0
		for _, err := range endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.slow")(t.Context(), &addRequest{}) {
			assert.NoError(t, err)
			n++
		}
		assert.Equal(t, n, 3)
	})
}

func TestFaultsRefuseEachCall(t *testing.T) {
	for name, mw := range map[string]endpoint.Middleware{
		"Timeout: 0s":             middleware.Timeout(0),
		"Timeout: -1s":            middleware.Timeout(-time.Second),
		"the limiter is nil":      middleware.RateLimit(nil),
		"RateLimit: the limiter":  middleware.RateLimit((*nilLimiter)(nil)),
		"Attempts is negative":    middleware.Retry(middleware.RetryPolicy{Attempts: -1, MaxBackoff: -1}),
		"MaxBackoff is negative":  middleware.Retry(middleware.RetryPolicy{Attempts: -1, MaxBackoff: -1}),
		"is less than Backoff 1s": middleware.Retry(middleware.RetryPolicy{Backoff: time.Second, MaxBackoff: 1}),
		"function 1 is nil":       middleware.FromKit(func(k kitFunc) kitFunc { return k }, nil),
		"a function returned nil": middleware.FromKit(func(kitFunc) kitFunc { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := caller(ok, mw)(t.Context(), &addRequest{})
			assert.ErrorIs(t, err, endpoint.InvalidArgument)
			assert.Contains(t, err.Error(), name)
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
			assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)

			m := endpoint.NewMux()
			serve(t, m, "svc.add", endpoint.New(add, mw))
			_, err = endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
			assert.Equal(t, err.Error(), "internal (construction)")
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
		})
	}
}

type nilLimiter struct{}

func (l *nilLimiter) Allow() bool { _ = *l; return true }
