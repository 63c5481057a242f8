package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// passenger is one call of the property: when it comes, and how long it waits at most.
type passenger struct{ at, patience int }

// TestCoalesceProperty: nobody waits beyond its patience or is told before that the time is up, who gets a reply gets
// the right one, and there is one flight at a time.
func TestCoalesceProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		takes := rapid.IntRange(1, 40).Draw(rt, "takes")
		people := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) passenger {
			return passenger{rapid.IntRange(0, 60).Draw(rt, "at"), rapid.IntRange(1, 80).Draw(rt, "patience")}
		}), 1, 12).Draw(rt, "people")
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = journey(t, takes, people) })
		if len(faults) > 0 {
			rt.Fatal(faults)
		}
	})
}

func journey(t *testing.T, takes int, people []passenger) (faults []string) {
	t.Helper()
	const unit = 20 * time.Millisecond
	var mu sync.Mutex
	flying := 0
	fault := func(format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, fmt.Sprintf(format, a...))
	}
	call := caller(func(ctx context.Context, _ *endpoint.Call) (any, error) {
		mu.Lock()
		flying++
		crowd := flying
		mu.Unlock()
		if crowd > 1 {
			fault("%d flights at once", crowd)
		}
		done := sleeps(ctx, time.Duration(takes)*unit)
		mu.Lock()
		flying--
		mu.Unlock()
		if !done {
			return nil, endpoint.ContextError(ctx)
		}
		return &addResponse{Sum: 3}, nil
	}, endpoint.ReadOnly(), middleware.Coalesce(nil))
	var wg sync.WaitGroup
	for i, p := range people {
		wg.Go(func() {
			// Nobody comes or goes at the same moment as somebody else, or as a flight ends: who is first then is chance.
			time.Sleep(time.Duration(p.at)*unit + time.Duration(i)*time.Microsecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(p.patience)*unit+300*time.Microsecond)
			defer cancel()
			start := time.Now()
			resp, err := call(ctx, &addRequest{})
			switch waited := time.Since(start); {
			case err == nil && resp.Sum != 3:
				fault("%d got %v", i, resp)
			case err != nil && !errors.Is(err, context.DeadlineExceeded):
				fault("%d: %v", i, err)
			case err != nil && waited != time.Duration(p.patience)*unit+300*time.Microsecond:
				fault("%d gave up after %v", i, waited)
			case waited > time.Duration(p.patience)*unit+300*time.Microsecond:
				fault("%d waited for %v", i, waited)
			case err != nil && p.patience > 2*takes && !hasty(people, p):
				fault("%d gave up although it had time for a flight of its own", i)
			}
		})
	}
	wg.Wait()
	return faults
}

// hasty reports whether anybody else has less patience: their flights may then end in vain.
func hasty(people []passenger, but passenger) bool {
	for _, p := range people {
		if p.patience < but.patience {
			return true
		}
	}
	return false
}

// Not in a bubble: many goroutines that come and go at any moment.
func TestCoalesceConcurrent(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		t.Run(side.String(), func(t *testing.T) {
			call := place(t, side, middleware.Coalesce(nil), func(ctx context.Context, r *addRequest) (*addResponse, error) {
				runtime.Gosched()
				return add(ctx, r)
			})
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for j := range 200 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*j)%7*100)*time.Microsecond)
						resp, err := call(ctx, &addRequest{A: j % 3})
						if cancel(); err == nil {
							assert.Equal(t, resp.Sum, j%3)
							resp.Sum = -1
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
