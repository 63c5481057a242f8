package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

var errFull = endpoint.ResourceExhausted.New("full").WithReason(endpoint.ReasonBacklogFull).WithOutcome(endpoint.NotExecuted).AsRemote()

// refuser is a handler that counts its calls and answers as it is told.
type refuser struct {
	calls atomic.Int64
	err   error
}

func (h *refuser) handle(context.Context, *endpoint.Call) (any, error) {
	h.calls.Add(1)
	return reply, h.err
}

// TestThrottleLaw: what counts as refused for overload, what as accepted, and what not at all.
func TestThrottleLaw(t *testing.T) {
	remote := func(c endpoint.Code, o endpoint.Outcome, reason string) error {
		return c.New("x").WithOutcome(o).WithReason(reason).AsRemote()
	}
	local := func(c endpoint.Code, o endpoint.Outcome, reason string) error {
		return c.New("x").WithOutcome(o).WithReason(reason)
	}
	const refused, accepted, unknown = "refused", "accepted", "unknown"
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"backlog full", errFull, refused},
		{"backlog wait", remote(endpoint.ResourceExhausted, endpoint.NotExecuted, endpoint.ReasonBacklogWait), refused},
		{"no reason given", remote(endpoint.ResourceExhausted, endpoint.NotExecuted, ""), refused},
		{"draining", errDraining.AsRemote(), refused},
		{"wrapped", fmt.Errorf("more: %w", errFull), refused},

		{"success", nil, accepted},
		{"a business error", remote(endpoint.NotFound, endpoint.Executed, ""), accepted},
		{"the handler's own resource_exhausted", remote(endpoint.ResourceExhausted, endpoint.Executed, ""), accepted},
		{"the handler's own unavailable", remote(endpoint.Unavailable, endpoint.Executed, ""), accepted},
		{"the handler's own timeout", remote(endpoint.DeadlineExceeded, endpoint.Executed, ""), accepted},
		{"a peer does not know", remote(endpoint.Unavailable, endpoint.MaybeExecuted, ""), accepted},
		{"permission denied", remote(endpoint.PermissionDenied, endpoint.NotExecuted, ""), accepted},
		{"one tenant's rate limit", remote(endpoint.ResourceExhausted, endpoint.NotExecuted, endpoint.ReasonRateLimited), accepted},
		{"too large", remote(endpoint.ResourceExhausted, endpoint.NotExecuted, endpoint.ReasonRequestTooLarge), accepted},
		{"headers too large", remote(endpoint.ResourceExhausted, endpoint.NotExecuted, endpoint.ReasonHeaderTooLarge), accepted},
		{"a reply that can't be read", local(endpoint.Internal, endpoint.Executed, endpoint.ReasonDecode), accepted},

		{"expired at the peer", remote(endpoint.DeadlineExceeded, endpoint.NotExecuted, endpoint.ReasonExpired), unknown},
		{"canceled at the peer", remote(endpoint.Canceled, endpoint.NotExecuted, ""), unknown},
		{"nobody there", errNobody, unknown},
		{"no connection", local(endpoint.Unavailable, endpoint.NotSent, endpoint.ReasonDisconnected), unknown},
		{"our own limit", local(endpoint.ResourceExhausted, endpoint.NotSent, endpoint.ReasonLocalLimit), unknown},
		{"our own breaker", local(endpoint.Unavailable, endpoint.NotSent, endpoint.ReasonBreakerOpen), unknown},
		{"our own timeout", endpoint.DeadlineExceeded.New("x"), unknown},
		{"foreign", errors.New("x"), unknown},
		{"a nil *Error", (*endpoint.Error)(nil), unknown},
	} {
		// Half of the other calls are refused: that is well with those that are accepted, and not with those that don't count.
		for _, mixed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h := &refuser{}
				call := caller(h.handle, middleware.Throttle(middleware.ThrottlePolicy{}))
				const calls = 2000
				held := 0
				for i := range calls {
					if h.err = tc.err; mixed && i%2 == 1 {
						h.err = errFull
					}
					_, err := call(t.Context(), &addRequest{})
					if e, ok := errors.AsType[*endpoint.Error](err); ok && e != nil && e.Reason() == endpoint.ReasonLocalLimit && e.Message != "x" {
						held++
						assert.Equal(t, e.Code, endpoint.ResourceExhausted)
						assert.Equal(t, e.Outcome(), endpoint.NotSent)
						assert.Equal(t, e.RetryAfter, time.Second)
						assert.True(t, !e.Remote(), "our own word")
					}
				}
				assert.Equal(t, int(h.calls.Load())+held, calls)
				switch {
				case tc.want == refused:
					assert.True(t, held > calls*8/10 && held < calls*95/100, fmt.Sprintf("%s: %d held back", tc.name, held))
				case tc.want == accepted || !mixed:
					assert.Equal(t, held, 0, tc.name)
				default:
					assert.True(t, held > calls*8/10, fmt.Sprintf("%s and refusals: %d held back", tc.name, held))
				}
			})
		}
	}
}

// TestThrottle: on the Mux, a service that takes a hundred calls a second gets twice as many of a thousand, and all of them
// soon after it has recovered.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		var asked atomic.Int64
		room := rate.NewLimiter(100, 20)
		admit := func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				asked.Add(1)
				if !room.Allow() {
					return nil, endpoint.ResourceExhausted.New("full").WithReason(endpoint.ReasonBacklogFull).WithOutcome(endpoint.NotExecuted)
				}
				return next(ctx, c)
			}
		}
		serve(t, m, "svc.add", endpoint.New(add, endpoint.With(admit)))
		var shares []float64
		report := func(name, subject string, value float64) {
			assert.Equal(t, name+" "+subject, "throttle svc")
			shares = append(shares, value)
		}
		call := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", middleware.Throttle(middleware.ThrottlePolicy{Report: report}))
		second := func() (good int) {
			asked.Store(0)
			for range 1000 {
				if _, err := call(t.Context(), &addRequest{}); err == nil {
					good++
				}
				time.Sleep(time.Millisecond)
			}
			return good
		}
		for range 20 {
			_ = second()
		}
		var sent, good int
		for range 10 {
			good += second()
			sent += int(asked.Load())
		}
		assert.True(t, sent > 1500 && sent < 2500, fmt.Sprintf("twice what it takes: %d in 10 s", sent))
		assert.True(t, good > 900, fmt.Sprintf("what it takes: %d in 10 s", good))
		last := shares[len(shares)-1]
		assert.True(t, last > 0.7 && last < 0.9, fmt.Sprintf("1 − 2 × 100/1000 is 0.8: %v", last))

		room.SetLimit(rate.Inf)
		recovered := 0
		for second() < 1000 {
			recovered++
		}
		assert.True(t, recovered >= 2 && recovered <= 12, fmt.Sprintf("recovered after %d s", recovered))
		_ = second()
		assert.Equal(t, asked.Load(), 1000)
		assert.Equal(t, shares[len(shares)-1], 0, "and so it is reported")
	})
}

// TestThrottleAfterAnOutage: however long nothing was taken, and however many wanted, it is soon over.
func TestThrottleAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &refuser{err: errFull}
		call := caller(h.handle, middleware.Throttle(middleware.ThrottlePolicy{}))
		for range 60_000 {
			_, _ = call(t.Context(), &addRequest{})
			time.Sleep(time.Millisecond)
		}
		assert.True(t, h.calls.Load() > 5000 && h.calls.Load() < 8000, fmt.Sprintf("a tenth of them: %d", h.calls.Load()))
		h.err = nil
		start, ok := time.Now(), 0
		for ; ok < 1000 && time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
			ok++
			if _, err := call(t.Context(), &addRequest{}); err != nil {
				ok = 0
			}
		}
		took := time.Since(start)
		assert.True(t, took < 20*time.Second, fmt.Sprintf("over after %v", took))
	})
}

// TestThrottleRareCalls: who calls once a second is never held back.
func TestThrottleRareCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &refuser{err: errFull}
		call := caller(h.handle, middleware.Throttle(middleware.ThrottlePolicy{}))
		for range 300 {
			_, err := call(t.Context(), &addRequest{})
			assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogFull)
			time.Sleep(time.Second)
		}
	})
}

// TestThrottleSlowCalls: calls that are still out look like those that were accepted, not like failures.
func TestThrottleSlowCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
			if n.Add(1)%2 == 0 {
				return nil, errFull // at once
			}
			time.Sleep(9 * time.Second)
			return ok(ctx, c)
		}, middleware.Throttle(middleware.ThrottlePolicy{}))
		var wg sync.WaitGroup
		for range 2000 {
			wg.Go(func() {
				if _, err := call(t.Context(), &addRequest{}); err != nil {
					assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogFull)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		wg.Wait()
	})
}

// TestThrottleServices: one value, a count for each service, whoever calls it.
func TestThrottleServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full, well := &refuser{err: errFull}, &refuser{}
		mw := middleware.Throttle(middleware.ThrottlePolicy{})
		of := func(h *refuser, subject string) endpoint.Unary[*addRequest, *addResponse] {
			return endpoint.Caller[*addRequest, *addResponse](transport(h.handle), subject, mw)
		}
		first, second, other := of(full, "math.add"), of(full, "math.sub"), of(well, "text.add")
		for range 1000 {
			_, _ = first(t.Context(), &addRequest{})
			_, err := other(t.Context(), &addRequest{})
			assert.NoError(t, err, "another service")
		}
		held := 0
		for range 10 { // as many as go out of a new service in any case
			if _, err := second(t.Context(), &addRequest{}); reasonOf(err) == endpoint.ReasonLocalLimit {
				held++
			}
		}
		assert.True(t, held > 0, "the same service")
	})
	synctest.Test(t, func(t *testing.T) { // a handler of one's own may be around several
		h := middleware.Throttle(middleware.ThrottlePolicy{})(func(_ context.Context, c *endpoint.Call) (any, error) {
			if c.Spec.Service == "full" {
				return nil, errFull
			}
			return reply, nil
		})
		for range 1000 {
			for _, service := range []string{"full", "well"} {
				_, err := h(t.Context(), endpoint.NewCall(&endpoint.Spec{Service: service}, service+".add", endpoint.ClientSide))
				assert.True(t, err == nil || service == "full", "another service")
			}
		}
	})
}

// TestThrottleLateVerdicts: what becomes of calls that went out a window ago or more is no news.
func TestThrottleLateVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
			if d := c.Header.Get("takes"); d != "" {
				takes, _ := time.ParseDuration(d)
				time.Sleep(takes)
				return nil, errFull
			}
			return ok(ctx, c)
		}, middleware.Throttle(middleware.ThrottlePolicy{
			Window: time.Second, Report: func(_, _ string, value float64) { t.Errorf("held back: %v", value) },
		}))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _, _ = call(endpoint.WithHeader(t.Context(), "takes", "1050ms"), &addRequest{}) })
		}
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			_, err := call(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
		wg.Wait()
	})
}

func TestThrottleServerPassesThrough(t *testing.T) {
	h := middleware.Throttle(middleware.ThrottlePolicy{})(fail(errFull))
	for range 1000 {
		_, err := h(t.Context(), newCall(endpoint.ServerSide))
		assert.Equal(t, reasonOf(err), endpoint.ReasonBacklogFull)
	}
}

// TestThrottleModel: what is reported is what the book's formula makes of the calls of the last ten tenths of a window, and
// nobody is held back without need, or as one of the first few.
func TestThrottleModel(t *testing.T) {
	const slot, parts, floor = 100 * time.Millisecond, 10, 3
	type step struct {
		pause, takes time.Duration
		err          error
	}
	type entry struct {
		slot           int64
		counts, accept bool
		sent           bool
	}
	ms := func(rt *rapid.T, what string) time.Duration {
		return time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 30, 100, 450, 2000}).Draw(rt, what)) * time.Millisecond
	}
	rapid.Check(t, func(rt *rapid.T) {
		k := rapid.SampledFrom([]float64{1, 1.5, 2}).Draw(rt, "k")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{ms(rt, "pause"), ms(rt, "takes"), rapid.SampledFrom([]error{errFull, errFull, nil, errNobody}).Draw(rt, "err")}
		}), 1, 100).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			start, now := time.Now(), step{}
			reported := 0.0
			call := caller(func(ctx context.Context, c *endpoint.Call) (any, error) {
				time.Sleep(now.takes)
				return reply, now.err
			}, middleware.Throttle(middleware.ThrottlePolicy{
				K: k, Window: parts * slot, PerSecond: floor, Most: 0.95,
				Report: func(_, _ string, value float64) { reported = value },
			}))
			var history []entry
			for _, now = range steps {
				time.Sleep(now.pause)
				at := int64(time.Since(start) / slot)
				var requests, accepted, sent float64
				for _, e := range history {
					if e.slot <= at-parts {
						continue
					}
					if e.counts {
						requests++
					}
					if e.accept {
						accepted++
					}
					if e.counts && e.sent {
						sent++
					}
				}
				want := min(max((requests-k*accepted)/(requests+1), 0), 0.95)
				_, err := call(t.Context(), &addRequest{})
				held := reasonOf(err) == endpoint.ReasonLocalLimit
				if math.Abs(reported-want) >= 0.01 || want == 0 && reported != 0 {
					t.Fatalf("reported %v, want %v", reported, want)
				}
				if held && (want == 0 || sent < floor) {
					t.Fatalf("held back at %v, with %v sent", want, sent)
				}
				history = append(history, entry{at, held || !errors.Is(now.err, errNobody), !held && now.err == nil, !held})
			}
		})
	})
}

func TestThrottleFaults(t *testing.T) {
	for _, tc := range []struct {
		p    middleware.ThrottlePolicy
		want []string
	}{
		{
			middleware.ThrottlePolicy{K: -1, Window: -1, Most: -1, PerSecond: -1},
			[]string{"Throttle", "K is negative", "Window is negative", "Most is negative", "PerSecond is negative"},
		},
		{middleware.ThrottlePolicy{K: 0.5, Window: 1, Most: 1}, []string{"K of 0.5", "Window of 1ns", "Most of 1"}},
		{middleware.ThrottlePolicy{K: math.NaN(), Most: math.Inf(1)}, []string{"K is not a number", "Most of +Inf"}},
		{middleware.ThrottlePolicy{K: math.Inf(1)}, []string{"infinite"}},
		{middleware.ThrottlePolicy{PerSecond: math.Inf(1)}, []string{"infinite"}},
	} {
		_, err := caller(ok, middleware.Throttle(tc.p))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.InvalidArgument)
		assert.Contains(t, err.Error(), tc.want...)
	}
}

func TestThrottleConcurrent(t *testing.T) {
	var n atomic.Int64
	h := func(context.Context, *endpoint.Call) (any, error) {
		switch n.Add(1) % 3 {
		case 0:
			return reply, nil
		case 1:
			return nil, errNobody
		}
		return nil, errFull
	}
	var reports atomic.Int64
	call := caller(h, middleware.Throttle(middleware.ThrottlePolicy{
		Window: 10 * time.Millisecond, Report: func(string, string, float64) { reports.Add(1) },
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				_, _ = call(t.Context(), &addRequest{})
			}
		})
	}
	wg.Wait()
	assert.True(t, n.Load() > 0 && n.Load() <= 40_000, "calls")
}

func TestAllocsThrottle(t *testing.T) {
	mw := middleware.Throttle(middleware.ThrottlePolicy{})
	assert.True(t, extra(t, wait, mw) <= 0, "a call that goes out")
	h := middleware.Throttle(middleware.ThrottlePolicy{})(fail(errFull))
	c := supply(endpoint.ClientSide, 2000)
	assert.Equal(t, testing.AllocsPerRun(1000, func() { _, _ = h(t.Context(), c()) }), 0, "one that is held back")
}

func BenchmarkThrottle(b *testing.B) {
	h := middleware.Throttle(middleware.ThrottlePolicy{})(instant)
	c := newCall(endpoint.ClientSide)
	for b.Loop() {
		_, _ = h(context.Background(), c)
	}
}
