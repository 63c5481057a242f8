package bustest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// diary knows when the handler of an endpoint began each call.
type diary struct {
	mu    sync.Mutex
	began map[int][]time.Time
}

func (d *diary) serve(t *testing.T, b *bus.Bus) {
	t.Helper()
	d.began = map[int][]time.Time{}
	assert.NoError(t, b.Serve("svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		d.mu.Lock()
		d.began[r.A] = append(d.began[r.A], time.Now())
		d.mu.Unlock()
		select { // long enough to be met by the end of the broker
		case <-time.After(40 * time.Millisecond):
		case <-ctx.Done():
		}
		return add(ctx, r)
	})))
}

// fate is what became of a call.
type fate struct {
	err   error
	start time.Time
	took  time.Duration
}

// outage makes 200 calls with retries and deadlines of 100 ms around a time without a broker: 40 are under way when it
// goes, the others come while it is away. It holds what they say against what was run.
func outage(t *testing.T, d *diary, caller *bus.Bus, away, limit time.Duration, down, up func(), opts ...endpoint.Option) {
	t.Helper()
	const calls, before, patience = 200, 40, 100 * time.Millisecond
	sum := endpoint.Caller[*addRequest, *addResponse](caller, "svc.add", append(opts, endpoint.With(middleware.Retry(middleware.RetryPolicy{})))...)
	fates := make([]fate, calls)
	var wg sync.WaitGroup
	call := func(i int) {
		wg.Go(func() {
			start := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := sum(ctx, &addRequest{A: i})
			fates[i] = fate{err, start, time.Since(start)}
		})
	}
	for i := range before {
		call(i)
		<-time.After(time.Millisecond)
	}
	down()
	for i := before; i < calls; i++ {
		call(i)
		<-time.After(away / (calls - before))
	}
	wg.Wait()
	up()
	<-time.After(6 * time.Second) // both have been back for a while
	_, err := sum(t.Context(), &addRequest{A: -1})
	assert.NoError(t, err, "it is over")
	d.mu.Lock()
	defer d.mu.Unlock()
	outcomes := map[string]int{}
	for i, f := range fates {
		what := fmt.Sprintf("call %d, run %d times: %v after %v", i, len(d.began[i]), f.err, f.took)
		if outcome := endpoint.OutcomeOf(f.err).String(); f.err != nil {
			outcomes[outcome]++
		} else {
			outcomes["fine"]++
		}
		for _, at := range d.began[i] {
			assert.True(t, at.Sub(f.start) <= limit, what, "a ghost")
		}
		assert.True(t, f.took <= limit, what)
		if i > before { // the first may be written before the caller knows
			assert.True(t, f.err != nil && endpoint.OutcomeOf(f.err) == endpoint.NotSent, what)
		}
		if f.err == nil {
			assert.True(t, len(d.began[i]) > 0, what)
			continue
		}
		_, typed := errors.AsType[*endpoint.Error](f.err)
		assert.True(t, typed, what)
		switch endpoint.OutcomeOf(f.err) {
		case endpoint.NotSent, endpoint.NotExecuted:
			assert.True(t, len(d.began[i]) == 0, what)
		case endpoint.Executed:
			assert.True(t, len(d.began[i]) > 0, what)
		case endpoint.MaybeExecuted: // whatever it is, it is true
		}
	}
	t.Logf("outcomes %v", outcomes)
}

// idempotence is whether calls may be tried again when it is not known what became of them.
var idempotence = map[string][]endpoint.Option{"idempotent": {endpoint.Idempotent()}, "not idempotent": nil}

func TestRow05OutageInVirtualTime(t *testing.T) {
	for name, opts := range idempotence {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, caller := n.Connect("service", quiet()), n.Connect("caller", quiet())
				var d diary
				d.serve(t, service)
				outage(t, &d, caller, 10*time.Second, 100*time.Millisecond, n.Server.Shutdown, func() { assert.NoError(t, n.Server.Restart()) }, opts...)
			})
		})
	}
}

// The same over sockets, in real time; ten seconds in a full run.
func TestRow05Outage(t *testing.T) {
	t.Parallel()
	away, limit := time.Second, 3*time.Second // a busy machine needs room
	if full() {
		away, limit = 10*time.Second, 150*time.Millisecond
	}
	for name, opts := range idempotence {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bustest.Server(t)
			connect := func() *bus.Bus {
				b, err := bus.Connect(s.URL(), quiet())
				assert.NoError(t, err)
				t.Cleanup(func() { _ = b.Close() })
				return b
			}
			service, caller := connect(), connect()
			var d diary
			d.serve(t, service)
			outage(t, &d, caller, away, limit, s.Shutdown, func() { assert.NoError(t, s.Restart()) }, opts...)
		})
	}
}
