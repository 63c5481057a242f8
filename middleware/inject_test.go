package middleware_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func always() bool { return true }

func TestFaultError(t *testing.T) {
	own := endpoint.Aborted.New("conflict").WithReason(endpoint.ReasonDraining)
	for name, tc := range map[string]struct {
		policy         middleware.FaultPolicy
		server         bool
		code           endpoint.Code
		reason         string
		outcome        endpoint.Outcome
		ran            bool
		handlerFailure error
	}{
		"client":        {policy: middleware.FaultPolicy{ErrorShare: 1}, code: endpoint.Unavailable, reason: endpoint.ReasonInjected, outcome: endpoint.NotSent},
		"server":        {policy: middleware.FaultPolicy{ErrorShare: 1}, server: true, code: endpoint.Unavailable, reason: endpoint.ReasonInjected, outcome: endpoint.NotExecuted},
		"client, after": {policy: middleware.FaultPolicy{ErrorShare: 1, After: true}, code: endpoint.Unavailable, reason: endpoint.ReasonInjected, outcome: endpoint.Executed, ran: true},
		"server, after": {policy: middleware.FaultPolicy{ErrorShare: 1, After: true}, server: true, code: endpoint.Unavailable, reason: endpoint.ReasonInjected, outcome: endpoint.Executed, ran: true},
		"an error of one's own": {
			policy: middleware.FaultPolicy{ErrorShare: 1, Err: own}, code: endpoint.Aborted, reason: endpoint.ReasonDraining, outcome: endpoint.NotSent,
		},
		"what fails by itself": {
			policy: middleware.FaultPolicy{ErrorShare: 1, After: true}, server: true, handlerFailure: endpoint.NotFound.New(""),
			code: endpoint.NotFound, outcome: endpoint.Executed, ran: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.policy.Armed = always
			m, ran := endpoint.NewMux(), false
			mw := middleware.Fault(tc.policy)
			if tc.server {
				m.Use(endpoint.OnServer(mw))
			} else {
				m.Use(endpoint.OnClient(mw))
			}
			serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
				ran = true
				return &addResponse{}, tc.handlerFailure
			}))
			_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
			assert.ErrorIs(t, err, tc.code)
			assert.Equal(t, reasonOf(err), tc.reason)
			assert.Equal(t, endpoint.OutcomeOf(err), tc.outcome)
			assert.Equal(t, ran, tc.ran)
		})
	}
}

func TestFaultLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(ok, middleware.Fault(middleware.FaultPolicy{Armed: always, Latency: time.Second, LatencyShare: 1}))
		start := time.Now()
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, time.Since(start), time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start = time.Now()
		_, err = call(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
		assert.Equal(t, time.Since(start), time.Millisecond)

		both := caller(ok, middleware.Fault(middleware.FaultPolicy{Armed: always, Latency: time.Second, LatencyShare: 1, ErrorShare: 1}))
		start = time.Now()
		_, err = both(t.Context(), &addRequest{})
		assert.Equal(t, reasonOf(err), endpoint.ReasonInjected)
		assert.Equal(t, time.Since(start), time.Second)
	})
}

// pattern tells which of n calls fail and which are late.
func pattern(t *testing.T, p middleware.FaultPolicy, n int) (failed, late []int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		call := caller(ok, middleware.Fault(p))
		for i := range n {
			start := time.Now()
			if _, err := call(t.Context(), &addRequest{}); err != nil {
				failed = append(failed, i)
			}
			if time.Since(start) > 0 {
				late = append(late, i)
			}
		}
	})
	return failed, late
}

func TestFaultShares(t *testing.T) {
	p := middleware.FaultPolicy{Armed: always, ErrorShare: 0.25, Latency: time.Second, LatencyShare: 0.5, Seed: 7}
	failed, late := pattern(t, p, 4000)
	assert.True(t, math.Abs(float64(len(failed))-1000) < 150, "a quarter")
	assert.True(t, math.Abs(float64(len(late))-2000) < 150, "half")
	again, lateAgain := pattern(t, p, 4000)
	assert.Equal(t, again, failed, "the same seed, the same calls")
	assert.Equal(t, lateAgain, late)
	p.Seed = 8
	other, _ := pattern(t, p, 4000)
	assert.True(t, len(other) != len(failed) || other[0] != failed[0] || other[1] != failed[1], "another seed")
	p.Seed = 0
	failed, _ = pattern(t, p, 4000)
	assert.True(t, math.Abs(float64(len(failed))-1000) < 250, "without one, too")
}

// Only who holds the switch can arm it: neither the zero value nor anything in a request does.
func TestFaultArmed(t *testing.T) {
	for _, mw := range []endpoint.Middleware{
		middleware.Fault(middleware.FaultPolicy{}),
		middleware.Fault(middleware.FaultPolicy{ErrorShare: 1}),
		middleware.Fault(middleware.FaultPolicy{Armed: always}),
	} {
		_, err := caller(ok, mw)(endpoint.WithHeader(t.Context(), "fault", "1", "x-fault", "error", "armed", "true"), &addRequest{})
		assert.NoError(t, err)
	}
	var armed atomic.Bool
	call := caller(ok, middleware.Fault(middleware.FaultPolicy{Armed: armed.Load, ErrorShare: 1}))
	for _, on := range []bool{false, true, false} {
		armed.Store(on)
		_, err := call(t.Context(), &addRequest{})
		assert.Equal(t, err != nil, on)
	}
}

func TestFaultStreams(t *testing.T) {
	for _, after := range []bool{false, true} {
		m := endpoint.NewMux()
		serve(t, m, "svc.many", endpoint.NewServerStream(endpoint.Emit(func(_ context.Context, _ *addRequest, send func(*addResponse) error) error {
			return send(&addResponse{})
		})))
		got := 0
		var failed error
		many := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.many", middleware.Fault(middleware.FaultPolicy{Armed: always, ErrorShare: 1, After: after}))
		for _, err := range many(t.Context(), &addRequest{}) {
			if failed = err; err == nil {
				got++
			}
		}
		assert.Equal(t, reasonOf(failed), endpoint.ReasonInjected)
		assert.Equal(t, got == 1, after)
	}
}

func TestFaultFaults(t *testing.T) {
	for _, tc := range []struct {
		policy middleware.FaultPolicy
		want   []string
	}{
		{
			middleware.FaultPolicy{Latency: -1, LatencyShare: 1.1, ErrorShare: -1},
			[]string{"LatencyShare 1.1 is not between 0 and 1", "ErrorShare -1 is not between 0 and 1", "Latency is negative"},
		},
		{middleware.FaultPolicy{LatencyShare: math.NaN(), ErrorShare: math.Inf(1)}, []string{"LatencyShare NaN", "ErrorShare +Inf"}},
		{middleware.FaultPolicy{LatencyShare: 0.1}, []string{"LatencyShare has no Latency"}},
		{
			middleware.FaultPolicy{Latency: 1, Err: &endpoint.Error{}, After: true},
			[]string{"Latency has no LatencyShare", "Err has no ErrorShare", "After has no ErrorShare", "Err has the code ok"},
		},
	} {
		for _, armed := range []func() bool{nil, always} {
			tc.policy.Armed = armed
			_, err := caller(ok, middleware.Fault(tc.policy))(t.Context(), &addRequest{})
			assert.Equal(t, reasonOf(err), endpoint.ReasonConstruction)
			assert.Contains(t, err.Error(), tc.want...)
		}
	}
	for name, mw := range map[string]endpoint.Middleware{
		"ValidateWith: the function is nil": middleware.ValidateWith(nil),
		"Authenticate: the function is nil": middleware.Authenticate(nil),
		"Fallback: the function is nil":     middleware.Fallback(nil),
	} {
		_, err := caller(ok, mw)(t.Context(), &addRequest{})
		assert.Contains(t, err.Error(), name)
		_, err = mw(ok)(t.Context(), newCall(endpoint.ServerSide))
		assert.ErrorIs(t, err, endpoint.Internal)
	}
}

// What was injected is told to Retry as what it stands for.
func TestFaultInsideOfRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		armed, left := true, 2
		call := caller(ok, middleware.Retry(middleware.RetryPolicy{}), middleware.Fault(middleware.FaultPolicy{ErrorShare: 1, Armed: func() bool {
			left--
			return armed && left >= 0
		}}))
		ctx, report := endpoint.Observe(t.Context())
		_, err := call(ctx, &addRequest{})
		assert.NoError(t, err)
		assert.Equal(t, report.Attempts, 1, "the injected ones were not sent")
		assert.Equal(t, left, -1)
		_, err = call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		assert.True(t, !errors.Is(err, endpoint.Unavailable))
	})
}
