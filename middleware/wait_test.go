package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

var patient = middleware.RetryPolicy{WaitForService: true, Budget: middleware.NewBudget(middleware.BudgetPolicy{Ratio: -1, PerSecond: -1})}

// outage is a service that is not there at first. It keeps when polls came, which are attempts beyond the first.
type outage struct {
	mu    sync.Mutex
	until time.Time
	err   error         // while it lasts
	slow  time.Duration // how long a call takes afterwards
	first int
	polls []time.Time // during the outage
	out   int         // polls out at the moment
	most  int
	after int // calls that got through
}

func (o *outage) handle(ctx context.Context, c *endpoint.Call) (any, error) {
	o.mu.Lock()
	down := time.Now().Before(o.until)
	if down && c.Attempt > 0 {
		o.polls = append(o.polls, time.Now())
	}
	if c.Attempt == 0 {
		o.first++
	} else if down {
		o.out++
		o.most = max(o.most, o.out)
	}
	o.mu.Unlock()
	time.Sleep(time.Millisecond) // a round trip
	o.mu.Lock()
	if down && c.Attempt > 0 {
		o.out--
	}
	if !down {
		o.after++
	}
	o.mu.Unlock()
	switch {
	case down:
		return nil, o.err
	case o.slow == 0: // a timer that is due at once, in several goroutines of a bubble, crashes go1.26's race detector
		return ok(ctx, c)
	}
	select {
	case <-time.After(o.slow):
		return ok(ctx, c)
	case <-ctx.Done():
		return nil, endpoint.ContextError(ctx)
	}
}

func TestWaitForService(t *testing.T) {
	for _, why := range []error{errNobody, errNobody.WithReason(endpoint.ReasonDisconnected).WithOutcome(endpoint.NotSent)} {
		synctest.Test(t, func(t *testing.T) {
			const callers = 50
			o := &outage{until: time.Now().Add(3 * time.Second), err: why}
			call := caller(o.handle, middleware.Retry(patient))
			var wg sync.WaitGroup
			start := time.Now()
			for range callers {
				wg.Go(func() {
					resp, err := call(within(t, time.Minute), &addRequest{})
					assert.NoError(t, err)
					assert.Equal(t, resp.Sum, 3)
					took := time.Since(start)
					assert.True(t, took >= 3*time.Second && took <= 3*time.Second+255*time.Millisecond, took.String())
				})
			}
			wg.Wait()
			assert.Equal(t, o.first, callers)
			assert.Equal(t, o.most, 1, "polls at once")
			var gaps []time.Duration
			last := start.Add(time.Millisecond)
			for _, at := range o.polls {
				gaps = append(gaps, at.Sub(last))
				last = at.Add(time.Millisecond)
			}
			for i, want := range []int{5, 10, 20, 40, 80, 160, 250, 250} {
				assert.Equal(t, gaps[i], time.Duration(want)*time.Millisecond, "pause before poll", fmt.Sprint(i))
			}
			assert.Equal(t, len(o.polls), 16, "polls in 3 s")
		})
	}
}

func TestWaitForServiceUntilTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := caller(fail(errNobody), middleware.Retry(patient))(within(t, 10*time.Second), &addRequest{})
		assert.Equal(t, time.Since(start), 10*time.Second)
		e, _ := errors.AsType[*endpoint.Error](err)
		assert.Equal(t, e.Code, endpoint.Unavailable)
		assert.Equal(t, e.Reason(), endpoint.ReasonNoResponders)
		assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
		list, _ := errors.AsType[*middleware.RetryError](err)
		assert.True(t, list.Total > 40 && list.Total < 50, "polls")
		assert.Equal(t, len(list.Attempts), 16, "a long list is cut in the middle")
		assert.Equal(t, list.Attempts[7].Attempt, 7)
		assert.Equal(t, list.Attempts[15].Attempt, list.Total-1)
		assert.Contains(t, list.Error(), fmt.Sprintf("; %d more; ", list.Total-16))
	})
}

// TestWaitForServiceSlowPoll: who polls holds up nobody when the poll met a slow handler.
func TestWaitForServiceSlowPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{until: time.Now().Add(time.Second), err: errNobody, slow: 10 * time.Second}
		call := caller(o.handle, middleware.Retry(patient))
		var wg sync.WaitGroup
		start := time.Now()
		for range 10 {
			wg.Go(func() {
				_, err := call(within(t, time.Minute), &addRequest{})
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		assert.True(t, time.Since(start) < 12*time.Second, "all at once, not one after the other")
	})
}

// TestWaitForServiceStuckPoll: a poll that never returns does not keep the turn either, should the service be lost again.
func TestWaitForServiceStuckPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var stuck atomic.Bool
		h := func(ctx context.Context, c *endpoint.Call) (any, error) {
			switch {
			case c.Attempt > 0 && stuck.CompareAndSwap(false, true):
				return hang(ctx, c)
			case time.Since(start) < 10*time.Second:
				return nil, errNobody
			}
			return ok(ctx, c)
		}
		call := caller(h, middleware.Retry(patient))
		var wg sync.WaitGroup
		var failures atomic.Int32
		for range 3 {
			wg.Go(func() {
				if _, err := call(within(t, 20*time.Second), &addRequest{}); err != nil {
					failures.Add(1)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, failures.Load(), 1, "the stuck one alone")
	})
}

// TestWaitForServiceStartsAfresh: one outage's pauses are not the next one's.
func TestWaitForServiceStartsAfresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{errs: []error{errNobody}}
		call := caller(s.handle, middleware.Retry(patient))
		for range 2 {
			*s = script{errs: s.errs}
			_, err := call(within(t, time.Second), &addRequest{})
			assert.ErrorIs(t, err, endpoint.Unavailable)
			for i, want := range []int{5, 10, 20} {
				assert.Equal(t, s.at[i+1].Sub(s.at[i]), time.Duration(want)*time.Millisecond)
			}
		}
	})
}

// TestWaitForServicePollRefusedHere: a poll that this process itself refused says nothing of the service.
func TestWaitForServicePollRefusedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var polls []time.Time
		h := func(_ context.Context, c *endpoint.Call) (any, error) {
			if c.Attempt == 0 {
				return nil, errNobody
			}
			mu.Lock()
			defer mu.Unlock()
			polls = append(polls, time.Now())
			return nil, endpoint.ResourceExhausted.New("limit").WithReason(endpoint.ReasonLocalLimit).WithOutcome(endpoint.NotSent)
		}
		call := caller(h, middleware.Retry(patient))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				_, err := call(within(t, time.Minute), &addRequest{})
				assert.ErrorIs(t, err, endpoint.ResourceExhausted)
			})
		}
		wg.Wait()
		for i, want := range []int{10, 20, 40} {
			assert.Equal(t, polls[i+1].Sub(polls[i]), time.Duration(want)*time.Millisecond, "one after the other")
		}
	})
}

// TestWaitForServiceNewcomer: a call that meets the service on its first attempt lets the waiting ones go.
func TestWaitForServiceNewcomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{until: time.Now().Add(time.Minute), err: errNobody}
		call := caller(o.handle, middleware.Retry(patient))
		var wg sync.WaitGroup
		var done time.Time
		wg.Go(func() {
			_, err := call(within(t, time.Hour), &addRequest{})
			assert.NoError(t, err)
			done = time.Now()
		})
		time.Sleep(59 * time.Second)
		o.mu.Lock()
		last := o.polls[len(o.polls)-1]
		o.mu.Unlock()
		time.Sleep(time.Until(last.Add(20 * time.Millisecond)))
		o.mu.Lock()
		o.until = time.Now()
		o.mu.Unlock()
		_, err := call(t.Context(), &addRequest{})
		assert.NoError(t, err)
		at := time.Now()
		wg.Wait()
		assert.True(t, done.Sub(at) <= 2*time.Millisecond, "at once")
	})
}

// TestWaitForServiceSubjects: callers of one subject wait for that one only, and direct calls for their instance.
func TestWaitForServiceSubjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		mw := middleware.Retry(patient)
		var wg sync.WaitGroup
		waits := func(subject string, ctx context.Context) *error {
			err := new(error)
			wg.Go(func() {
				_, *err = endpoint.Caller[*addRequest, *addResponse](m, subject, mw)(ctx, &addRequest{})
			})
			return err
		}
		here := waits("svc.here", within(t, 10*time.Second))
		gone := waits("svc.gone", within(t, 10*time.Second))
		other := waits("svc.here", endpoint.WithInstance(within(t, 10*time.Second), "nobody"))
		time.Sleep(time.Second)
		serve(t, m, "svc.here", endpoint.New(add))
		wg.Wait()
		assert.NoError(t, *here)
		assert.ErrorIs(t, *gone, endpoint.Unavailable)
		assert.ErrorIs(t, *other, endpoint.Unavailable)
	})
}

// TestWaitForServiceThenTheLaw: what a poll meets is judged as any other answer.
func TestWaitForServiceThenTheLaw(t *testing.T) {
	for _, tc := range []struct {
		name  string
		errs  []error
		tries int
		code  endpoint.Code
	}{
		{"refused for good", []error{errNobody, errNobody, endpoint.NotFound.New("x")}, 3, endpoint.NotFound},
		{"budget used up", []error{errNobody, errDraining}, 2, endpoint.Unavailable},
		{"comes and goes", []error{errNobody, errNobody, errNobody, nil}, 4, endpoint.OK},
		{"a limiter of our own", []error{errNobody, endpoint.ResourceExhausted.New("x").WithOutcome(endpoint.NotSent)}, 2, endpoint.ResourceExhausted},
		{"refused by somebody", []error{errNobody, errDraining.AsRemote()}, 2, endpoint.Unavailable},
		{"no more", []error{errNobody.WithRetryAfter(-1)}, 1, endpoint.Unavailable},
		{"may be executed", []error{errNobody.WithOutcome(endpoint.MaybeExecuted)}, 1, endpoint.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{errs: tc.errs}
				_, err := caller(s.handle, middleware.Retry(patient))(within(t, time.Minute), &addRequest{})
				assert.Equal(t, endpoint.CodeOf(err), tc.code)
				assert.Equal(t, len(s.at), tc.tries)
			})
		})
	}
}

// TestWaitForServicePollPanics: the turn is given back.
func TestWaitForServicePollPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		h := func(ctx context.Context, c *endpoint.Call) (any, error) {
			switch n := n.Add(1); {
			case n <= 2:
				return nil, errNobody
			case n == 3:
				panic("poll")
			}
			return ok(ctx, c)
		}
		call := caller(h, endpoint.With(middleware.Recover(), middleware.Retry(patient)))
		var wg sync.WaitGroup
		var errs [2]error
		for i := range errs {
			wg.Go(func() { _, errs[i] = call(within(t, time.Minute), &addRequest{}) })
		}
		wg.Wait()
		assert.True(t, (errs[0] == nil) != (errs[1] == nil), "one panicked, one got through")
		_, isPanic := errors.AsType[*endpoint.PanicError](errors.Join(errs[:]...))
		assert.True(t, isPanic, "a PanicError")
	})
}

func TestWaitForServiceStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		stream := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.tick", middleware.Retry(patient))
		tick := func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
			return func(yield func(*addResponse, error) bool) {
				for i := range 100 {
					time.Sleep(time.Second)
					if !yield(&addResponse{Sum: i}, nil) {
						return
					}
				}
			}
		}
		time.AfterFunc(time.Minute, func() { serve(t, m, "svc.tick", endpoint.NewServerStream(tick)) })
		var wg sync.WaitGroup
		start := time.Now()
		for range 3 {
			wg.Go(func() {
				n := 0
				for _, err := range stream(t.Context(), &addRequest{}) { // no deadline: it waits for good
					assert.NoError(t, err)
					n++
				}
				assert.Equal(t, n, 100)
			})
		}
		wg.Wait()
		assert.True(t, time.Since(start) < 161*time.Second, "at the same time")
	})
}

// TestWaitForServiceModel: whatever callers and outages do, each call ends by its deadline, in success if the service was
// there for long enough, with one poll out at a time, and no two polls closer than the law allows.
func TestWaitForServiceModel(t *testing.T) {
	type visitor struct{ at, timeout time.Duration }
	rapid.Check(t, func(rt *rapid.T) {
		length := time.Duration(rapid.IntRange(1, 3000).Draw(rt, "outage")) * time.Millisecond
		visitors := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) visitor {
			return visitor{
				at:      time.Duration(rapid.IntRange(0, 3000).Draw(rt, "at")) * time.Millisecond,
				timeout: time.Duration(rapid.IntRange(1, 4000).Draw(rt, "timeout")) * time.Millisecond,
			}
		}), 1, 20).Draw(rt, "visitors")
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			o := &outage{until: start.Add(length), err: errNobody}
			call := caller(o.handle, middleware.Retry(patient))
			var wg sync.WaitGroup
			for _, v := range visitors {
				wg.Go(func() {
					time.Sleep(v.at)
					ctx := within(t, v.timeout)
					_, err := call(ctx, &addRequest{})
					if end := time.Since(start); end > v.at+v.timeout+time.Millisecond {
						t.Errorf("ended at %v, started at %v with %v", end, v.at, v.timeout)
					}
					if enough := v.at+v.timeout > max(length, v.at)+260*time.Millisecond; err != nil && enough {
						t.Errorf("failed in spite of the service's return: %v", err)
					}
				})
			}
			wg.Wait()
			assert.True(t, o.most <= 1, "one poll at a time")
			for i := 1; i < len(o.polls); i++ {
				assert.True(t, o.polls[i].Sub(o.polls[i-1]) >= 5*time.Millisecond, "polls too close")
			}
		})
	})
}
