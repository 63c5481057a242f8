package bustest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
	"postbus.example/middleware/metrics"
	"postbus.example/middleware/tracing"
)

// inUse is what the heap and the stacks of this process take, garbage left out.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// scale is what a host says of itself, in bytes.
type scale struct {
	InUse   int64
	Peak    int64 // the most that the heap took, garbage and all, since it was last asked
	Waiting int64 // calls
	Dropped uint64
}

// host serves, in a process of its own, calls that wait until host.open, calls that take 10 ms, and host.weigh.
func host(t *testing.T, url string) (id string) {
	t.Helper()
	b := dial(t, url)
	opened := make(chan struct{})
	assert.NoError(t, b.Serve("svc.wait", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) {
		<-opened
		return r, nil
	}, endpoint.Codec(codec.Raw), endpoint.Concurrency(1), endpoint.Backlog(200_000, time.Hour))))
	assert.NoError(t, b.Serve("svc.work", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) {
		<-time.After(10 * time.Millisecond)
		return r, nil
	}, endpoint.Codec(codec.Raw), endpoint.Concurrency(4), endpoint.Backlog(4, time.Second))))
	peak := watchHeap(t)
	assert.NoError(t, b.Serve("host.weigh", endpoint.New(func(context.Context, struct{}) (*scale, error) {
		n := &scale{InUse: inUse(), Peak: peak.Swap(0)}
		for _, s := range b.Stats() {
			n.Waiting, n.Dropped = n.Waiting+s.Waiting, n.Dropped+s.Dropped
		}
		return n, nil
	})))
	assert.NoError(t, b.Serve("host.open", endpoint.New(func(context.Context, struct{}) (struct{}, error) {
		close(opened)
		return struct{}{}, nil
	})))
	return b.ID()
}

// watchHeap follows the heap, garbage and all.
func watchHeap(t testing.TB) *atomic.Int64 {
	t.Helper()
	var peak atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), int64(m.HeapInuse)))
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
	return &peak
}

// wholeStack is the recommended stack of a client, with all that costs something on each call.
func wholeStack() endpoint.Middleware {
	return middleware.Client(middleware.Defaults{
		Metrics: metrics.New(prometheus.NewRegistry()),
		Tracing: tracing.New(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample())), nil),
		Log:     slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})), //nolint:sloglint // a handler of life, at warn
		Timeout: 5 * time.Minute, Retry: &middleware.RetryPolicy{}, Breaker: &middleware.BreakerPolicy{},
	})
}

// crowd starts broker and host, and returns a caller, and how to ask the host and to let its calls go on.
func crowd(t *testing.T) (caller *bus.Bus, weigh func() *scale, open func()) {
	t.Helper()
	url, _, _ := strings.Cut(start(t, "broker", "").said, " ")
	start(t, "host", url)
	caller = dial(t, url)
	scales := endpoint.Caller[struct{}, *scale](caller, "host.weigh")
	opens := endpoint.Caller[struct{}, struct{}](caller, "host.open")
	ctx := context.WithoutCancel(t.Context())
	weigh = func() *scale {
		s, err := scales(ctx, struct{}{})
		assert.NoError(t, err)
		return s
	}
	return caller, weigh, func() {
		_, err := opens(ctx, struct{}{})
		assert.NoError(t, err)
	}
}

// What a call in flight weighs, at its caller and at a service where it waits, stacks and goroutines and all; they and the
// broker are processes of their own. A full run has 100,000 of them.
//
// At the caller most of it is the stack of the goroutine that waits: 4 KiB, in which the whole stack of middleware has to fit, since
// it lies between the caller and its reply. The rest is some 2 KiB of slot, timer, call, goroutine, and who has the call.
func TestWeightOfCallsInFlight(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector weighs more than what it is asked to weigh")
	}
	calls := 100_000
	if !full() {
		calls /= 10
	}
	for _, c := range []struct {
		name string
		opts []endpoint.Option
		most int64
	}{
		{"bare", nil, 6_900},
		{"whole", []endpoint.Option{endpoint.With(wholeStack())}, 6_600},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller, weigh, open := crowd(t)
			client, service := inFlight(t, caller, weigh, open, calls, append(c.opts, endpoint.Codec(codec.Raw)))
			t.Logf("%d calls: caller %.1f MB, %d bytes each; service %.1f MB, %d bytes each (full: %v)",
				calls, float64(client)/1e6, client/int64(calls), float64(service)/1e6, service/int64(calls), full())
			assert.True(t, client/int64(calls) <= c.most, "at the caller")
			assert.True(t, service/int64(calls) <= 1200, "at the service")
		})
	}
}

// inFlight makes so many calls, lets them wait until they are acked, and returns what they weigh.
func inFlight(t *testing.T, caller *bus.Bus, weigh func() *scale, open func(), calls int, opts []endpoint.Option) (client, service int64) {
	t.Helper()
	call := endpoint.Caller[*[]byte, *[]byte](caller, "svc.wait", opts...)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute) // one for all: whose it is, is not the bus's to weigh
	defer cancel()
	body := []byte("x")
	hostBefore, before := weigh().InUse, inUse()
	failures := make(chan error, calls)
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := call(ctx, &body); err != nil {
				failures <- err
			}
		})
	}
	for late := time.Now().Add(time.Minute); weigh().Waiting < int64(calls)-1; <-time.After(10 * time.Millisecond) {
		if len(failures) > 0 || time.Now().After(late) {
			cancel()
			t.Fatal("not all are there: ", len(failures), " failed")
		}
	}
	<-time.After(time.Second) // for the acks, and the first probes
	client, service = inUse()-before, weigh().InUse-hostBefore
	open()
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Fatal(err)
	}
	return client, service
}

// At ten times the capacity of a service its heap stays as it is: for a minute in a full run.
func TestHeapUnderOverload(t *testing.T) {
	took := 3 * time.Second
	if full() {
		took = time.Minute
	}
	caller, weigh, open := crowd(t)
	defer open()
	call := endpoint.Caller[[]byte, []byte](caller, "svc.work", endpoint.Codec(codec.Raw))
	before, own := weigh().Peak, watchHeap(t)
	var refused, good atomic.Int64
	end := time.Now().Add(took)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var wg sync.WaitGroup
	for now := range tick.C {
		if now.After(end) {
			break
		}
		for range 40 { // 4,000/s where it does 400
			wg.Go(func() {
				if _, err := call(t.Context(), make([]byte, 1000)); err == nil {
					good.Add(1)
				} else if strings.Contains(err.Error(), endpoint.ReasonBacklogFull) {
					refused.Add(1)
				}
			})
		}
	}
	wg.Wait()
	grown := weigh().Peak - before
	t.Logf("%v at ten times the capacity, %d good, %d refused: the heap of the service grew by %.1f MB, that of the callers took %.1f MB (full: %v)",
		took, good.Load(), refused.Load(), float64(grown)/1e6, float64(own.Load())/1e6, full())
	assert.True(t, refused.Load() > good.Load(), fmt.Sprint("overload: ", refused.Load(), good.Load()))
	assert.True(t, grown < 64e6, "the heap")
}
