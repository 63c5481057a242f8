package bustest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// full tells that figures are to be reached whole, as for a release: POSTBUS_FULL=1. By default a tenth or less of them is run.
func full() bool { return os.Getenv("POSTBUS_FULL") == "1" }

// pace is how many calls go out in a second: what a machine that has other things to do can bear, or the whole.
func pace() int {
	if full() {
		return 2000
	}
	return 500
}

// load is an open loop of calls: they go out at their rate whatever became of those before.
type load struct {
	callers []endpoint.Unary[[]byte, []byte] // each has its turn
	rate    int                              // calls in a second
	limit   time.Duration                    // of one call
	body    []byte                           // of all of them; by default each has its number
	observe bool                             // who had them

	phase atomic.Pointer[string] // what is done to the service at the moment
	mu    sync.Mutex
	ended []result
}

// result is what became of one call.
type result struct {
	caller      int
	begin, took time.Duration // begin is since the load began
	phase       string        // at its begin
	instance    string        // if it was observed
	err         error
}

func (r result) String() string {
	return fmt.Sprintf("caller %d, after %v, in %v, %s: %v (%v)", r.caller, r.begin, r.took, r.phase, r.err, endpoint.OutcomeOf(r.err))
}

// duringf says what happens now.
func (l *load) duringf(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	l.phase.Store(&s)
}

// run calls until f has returned and at least n calls were made, and waits for the last one to end. Each call carries its number.
func (l *load) run(t *testing.T, n int, f func() error) (calls int) {
	t.Helper()
	l.duringf("before")
	var wg sync.WaitGroup
	var flight atomic.Int64 // a machine that does not keep up is not buried
	over := make(chan error, 1)
	go func() { over <- f() }()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for done := false; !done || calls < n; {
		select {
		case err := <-over:
			assert.NoError(t, err, *l.phase.Load())
			done = true
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(l.rate)); calls < due && flight.Load() < int64(2*l.rate); calls++ {
			i := calls
			flight.Add(1)
			wg.Go(func() {
				defer flight.Add(-1)
				l.call(i, start)
			})
		}
	}
	wg.Wait()
	return calls
}

// await waits until so many more calls have ended.
func (l *load) await(more int) {
	ended := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.ended)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for want := ended() + more; ended() < want; {
		<-tick.C
	}
}

func (l *load) call(i int, start time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), l.limit)
	defer cancel()
	r := result{caller: i % len(l.callers), phase: *l.phase.Load()}
	body := l.body
	if body == nil {
		body = fmt.Append(nil, i)
	}
	var report *endpoint.Report
	if l.observe {
		ctx, report = endpoint.Observe(ctx)
	}
	begin := time.Now()
	_, r.err = l.callers[r.caller](ctx, body)
	r.begin, r.took = begin.Sub(start), time.Since(begin)
	if report != nil {
		r.instance = report.Instance
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, r)
}

// failures are the calls that failed.
func (l *load) failures() (all []result) {
	for _, r := range l.ended {
		if r.err != nil {
			all = append(all, r)
		}
	}
	return all
}

// none fails the test for each kind of failure, with examples.
func (l *load) none(t *testing.T) {
	t.Helper()
	kinds := map[string][]result{}
	for _, r := range l.failures() {
		e, _ := errors.AsType[*endpoint.Error](r.err)
		kind := "untyped"
		if e != nil {
			kind = fmt.Sprintf("%v/%s, %v", e.Code, e.Reason(), e.Outcome())
		}
		kinds[kind] = append(kinds[kind], r)
	}
	for kind, rs := range kinds {
		var some strings.Builder
		for _, r := range rs[:min(5, len(rs))] {
			fmt.Fprintf(&some, "\n\t%v", r)
		}
		t.Errorf("%d failed with %s, such as%s", len(rs), kind, some.String())
	}
}

// report writes the figures down.
func (l *load) report(t *testing.T, restarts int) {
	t.Helper()
	t.Logf("%d restarts, %d calls, %d failed, p50 %v, p99 %v, slowest %v",
		restarts, len(l.ended), len(l.failures()), l.slowest(0.5), l.slowest(0.99), l.slowest(1))
}

// slowest returns what a share of the calls took at most.
func (l *load) slowest(share float64) time.Duration {
	all := make([]time.Duration, len(l.ended))
	for i, r := range l.ended {
		all[i] = r.took
	}
	slices.Sort(all)
	return all[min(int(share*float64(len(all))), len(all)-1)]
}

// raw is a caller of bytes.
func raw(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.Unary[[]byte, []byte] {
	return endpoint.Caller[[]byte, []byte](b, subject, append(opts, endpoint.Codec(codec.Raw))...)
}

// dial connects a bus that the test ends itself, over TCP.
func dial(t *testing.T, url string, opts ...bus.Option) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(url, append([]bus.Option{quiet()}, opts...)...)
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// quiet is for buses whose errors are the point of the test.
func quiet() bus.Option { return bus.WithLogger(slog.New(slog.DiscardHandler)) }
