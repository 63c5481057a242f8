package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestNothingIsLeftOfCalls(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.some", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		if len(r)%2 == 1 {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		return r, nil
	}))
	call := echoer(caller, "svc.some")
	before := runtime.NumGoroutine()
	failures := each(1000, func(i int) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if i%3 == 0 {
			time.AfterFunc(time.Duration(i%7)*time.Millisecond, cancel)
		}
		_, err := call(ctx, make([]byte, i%100))
		return err
	})
	canceled := 0
	for _, err := range failures {
		if err != nil {
			failed(t, err, endpoint.Canceled, "", endpoint.OutcomeOf(err)) // NotSent or MaybeExecuted, by when it hit
			canceled++
		}
	}
	t.Logf("%d of 1000 were canceled", canceled)
	assert.Eventually(t, func() bool {
		s := statsOf(t, service, "svc.some")
		return caller.Slots() == 0 && s.InFlight == 0 && s.Waiting == 0
	})
	assert.NoError(t, service.Stop(t.Context(), "svc.some"))
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before }, "goroutines are back where they were")
}

// Everything at once: every call ends, with its own reply or a typed error.
func TestEverythingAtOnce(t *testing.T) {
	s := bustest.Server(t, unheard())
	stays, caller := connect(t, s, quiet()), connect(t, s, quiet())
	serve(t, stays, "svc.add", endpoint.New(add, endpoint.Concurrency(4), endpoint.Backlog(16, 50*time.Millisecond)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var good, bad atomic.Int32
	faults := make(chan error, 100)
	fault := func(err error) {
		select {
		case faults <- err:
		default:
		}
	}
	report := func(err error) {
		if err != nil {
			fault(err)
		}
	}
	for i := range 12 {
		wg.Go(func() {
			sum := adder(caller, "svc.add")
			for n := 0; ctx.Err() == nil; n++ {
				c, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(50))*time.Millisecond)
				resp, err := sum(c, &AddRequest{i*1_000_000 + n, 1})
				cancel()
				e, typed := errors.AsType[*endpoint.Error](err)
				switch {
				case err == nil && resp.Sum != i*1_000_000+n+1:
					fault(fmt.Errorf("another call's reply: %d", resp.Sum))
				case err == nil:
					good.Add(1)
				case !typed || e.Code != endpoint.DeadlineExceeded && e.Code != endpoint.ResourceExhausted && e.Code != endpoint.Unavailable:
					fault(err)
				default:
					bad.Add(1)
				}
			}
		})
	}
	churn := func(f func(b *bus.Bus) error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				b, err := reach(s)
				if err == nil {
					err = f(b)
				}
				if err != nil {
					fault(err)
					return
				}
			}
		})
	}
	churn(func(b *bus.Bus) error { // comes and goes
		for range 3 {
			if err := errors.Join(b.Serve("svc.add", endpoint.New(add)), b.Stop(context.Background(), "svc.add")); err != nil {
				return err
			}
		}
		return errors.Join(b.Serve("svc.add", endpoint.New(add)), b.Drain(context.Background()))
	})
	churn(func(b *bus.Bus) error { // ends while it begins
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				subject := fmt.Sprintf("churn%d.x", i)
				if err := b.Serve(subject, endpoint.New(add)); err != nil && !errors.Is(err, endpoint.Unavailable) {
					fault(err)
				}
				if err := b.Stop(context.Background(), subject); err != nil && !errors.Is(err, endpoint.NotFound) {
					fault(err)
				}
			})
			wg.Go(func() { _, _ = adder(b, "svc.add")(ctx, &AddRequest{1, 1}) })
			wg.Go(func() { _ = b.Stats() })
		}
		wg.Go(func() { report(b.Drain(context.Background())) })
		wg.Go(func() { report(b.Close()) })
		wg.Wait()
		return nil
	})
	churn(func(b *bus.Bus) error { // looks on
		_, err := b.Discover(ctx, "svc")
		_ = stays.Ready(ctx)
		return errors.Join(ignoreContext(err), b.Close())
	})
	wg.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	t.Logf("%d good, %d failed as they may", good.Load(), bad.Load())
	assert.True(t, good.Load() > 0, "there is always a way")
	assert.Equal(t, caller.Slots(), 0)
}

func ignoreContext(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func TestStartIsFast(t *testing.T) {
	best := time.Hour
	for range 3 {
		start := time.Now()
		b := alone(t, quiet())
		serve(t, b, "svc.add", endpoint.New(add))
		_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		best = min(best, time.Since(start))
	}
	t.Logf("server, bus, endpoint and first call in %v", best)
	assert.True(t, best < 500*time.Millisecond, "fast: "+best.String())
}
