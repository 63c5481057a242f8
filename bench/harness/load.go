package harness

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	patience   = time.Minute // of a caller, for all its calls together
	maxErrors  = 1000        // then a caller stops
	histograms = 1024        // are shared beyond as many callers
)

const (
	warming int32 = iota
	measuring
	stopping
)

// run is one load on a client while it lasts.
type run struct {
	Load
	call   Call
	phase  atomic.Int32
	start  time.Time // of the schedule, in an open loop
	counts []Histogram
	all    atomic.Uint64
	errors atomic.Uint64
	first  atomic.Pointer[string]
}

// Drive puts a load on a client in this process.
func Drive(l Load, call Call) *Result {
	r := &run{Load: l, call: call, counts: make([]Histogram, min(l.Callers, histograms))}
	runtime.GC() // what earlier loads left is not this one's cost
	before := OwnUsage()
	stopHogs := hog(l.Hogs)
	var callers sync.WaitGroup
	r.start = time.Now()
	for i := range l.Callers {
		callers.Go(func() { r.caller(i) })
	}
	time.Sleep(l.Warm)
	began := time.Now()
	r.phase.Store(measuring)
	time.Sleep(l.Window)
	r.phase.Store(stopping)
	took := time.Since(began)
	callers.Wait()
	stopHogs()
	return r.result(took, OwnUsage().Since(before))
}

func (r *run) caller(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	histogram := &r.counts[i%len(r.counts)]
	n := uint64(0)
	defer func() { r.all.Add(n) }()
	for next := r.pace(i); ; n++ {
		begin := next()
		phase := r.phase.Load()
		if phase == stopping {
			return
		}
		if err := r.call(ctx); err != nil {
			if !r.failed(err) {
				return
			}
			continue
		}
		if phase == measuring {
			histogram.Add(time.Since(begin))
		}
	}
}

// failed notes an error, and reports whether to go on.
func (r *run) failed(err error) bool {
	text := err.Error()
	r.first.CompareAndSwap(nil, &text)
	return r.errors.Add(1) < maxErrors
}

func (r *run) result(took time.Duration, used Usage) *Result {
	var sum Histogram
	for i := range r.counts {
		sum.Merge(&r.counts[i])
	}
	res := &Result{
		Calls: sum.Count(), All: r.all.Load(), Errors: r.errors.Load(), Seconds: took.Seconds(),
		P50: sum.Quantile(0.5), P99: sum.Quantile(0.99), P999: sum.Quantile(0.999),
		Client: used,
	}
	if text := r.first.Load(); text != nil {
		res.Error = *text
	}
	return res
}

// hog burns processors by n goroutines that never wait, until the function it returns is called.
func hog(n int) (stop func()) {
	var done atomic.Bool
	var hogs sync.WaitGroup
	for range n {
		hogs.Go(func() {
			for !done.Load() {
			}
		})
	}
	return func() {
		done.Store(true)
		hogs.Wait()
	}
}
