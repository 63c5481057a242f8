package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The tests in this file run in bubbles of virtual time: what becomes of calls in batch frames when their callers leave, and in
// bad weather.

// eagerFar is far with a caller who sends all calls in frames; some of the calls in one share it.
func eagerFar(t *testing.T) (n *bustest.Net, service, caller *bus.Bus) {
	t.Helper()
	n = bustest.NewNet(t)
	service, caller = n.Connect("service", quiet(), bus.Framing()), n.Connect("caller", quiet(), bus.Eager())
	latency(n)
	return n, service, caller
}

// noneLeft checks that nothing of the calls stays behind.
func noneLeft(t *testing.T, service *bus.Bus, callers ...*bus.Bus) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	assert.Equal(t, service.Acked()+service.Kept(), 0, "at the service's")
	for _, b := range append(callers, service) {
		assert.Equal(t, fmt.Sprint(b.Slots(), b.FrameSlots(), b.Tombs(), b.Watched(), b.Waiting()), "0 0 0 0 0")
	}
}

// waits is a handler that answers after what it was given, or when its context ends, and counts.
type waits struct {
	mu       sync.Mutex
	ran      map[string]int
	canceled map[string]time.Time
}

func newWaits() *waits { return &waits{ran: map[string]int{}, canceled: map[string]time.Time{}} }

func (w *waits) handle(ctx context.Context, r []byte) ([]byte, error) {
	w.mu.Lock()
	w.ran[string(r)]++
	w.mu.Unlock()
	_, text, _ := strings.Cut(string(r), " ")
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(d):
		return r, nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.canceled[string(r)] = time.Now()
		return nil, ctx.Err()
	}
}

// once checks that every call that was executed was so once.
func (w *waits) once(t *testing.T, least, most int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.True(t, len(w.ran) >= least && len(w.ran) <= most, fmt.Sprint(len(w.ran), " ran"))
	for body, n := range w.ran {
		assert.Equal(t, n, 1, body)
	}
}

// A caller that leaves ends its own handler's context, soon after the ack, and nobody else's.
func TestBatchBubble_cancel(t *testing.T) {
	for _, leaves := range []time.Duration{time.Millisecond, 15 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			_, service, caller := eagerFar(t)
			w := newWaits()
			serve(t, service, "svc.slow", rawEndpoint(w.handle))
			call := echoer(caller, "svc.slow")
			start := time.Now()
			for i, err := range each(16, func(i int) error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if i == 5 {
					time.AfterFunc(leaves, cancel)
				}
				_, err := call(ctx, fmt.Appendf(nil, "%d 500ms", i))
				return err
			}) {
				if i == 5 {
					failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
				} else {
					assert.NoError(t, err)
				}
			}
			w.once(t, 16, 16)
			assert.Equal(t, len(w.canceled), 1)
			late := w.canceled["5 500ms"].Sub(start) - max(leaves, 30*time.Millisecond) // two ways, and the ack's 10 ms and two ways
			assert.True(t, late <= 50*time.Millisecond, late.String())
			noneLeft(t, service, caller)
		})
	}
}

// An instance that dies loses the calls that it acked, all of them, and is known to within a moment.
func TestBatchBubble_killed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := eagerFar(t)
		w := newWaits()
		serve(t, service, "svc.slow", rawEndpoint(w.handle))
		call := echoer(caller, "svc.slow")
		time.AfterFunc(300*time.Millisecond, func() { kill(n, "service") })
		for i, err := range each(16, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := call(ctx, fmt.Appendf(nil, "%d %s", i, []string{"50ms", "20s"}[i%2]))
			return err
		}) {
			if i%2 == 0 {
				assert.NoError(t, err)
			} else {
				failed(t, err, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
			}
		}
		w.once(t, 16, 16)
		noneLeft(t, service, caller)
	})
}

// A caller that loses its connection loses the calls that nobody acked; the others go on. What was not sent says so.
func TestBatchBubble_callerLost(t *testing.T) {
	for _, lost := range []time.Duration{2 * time.Millisecond, 12 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			n, service, caller := eagerFar(t)
			w := newWaits()
			serve(t, service, "svc.slow", rawEndpoint(w.handle))
			call := echoer(caller, "svc.slow")
			time.AfterFunc(lost, n.Link("caller").Cut)
			each(16, func(i int) bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := call(ctx, fmt.Appendf(nil, "%d 10s", i))
				if lost < 30*time.Millisecond {
					failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
				} else {
					assert.NoError(t, err)
				}
				return true
			})
			w.once(t, 0, 16)
			noneLeft(t, service, caller)
		})
	}
}

// A service that is away when its answers are ready sends them when it is back, whatever they would have shared.
func TestBatchBubble_serviceLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := eagerFar(t)
		w := newWaits()
		serve(t, service, "svc.slow", rawEndpoint(w.handle))
		call := echoer(caller, "svc.slow")
		time.AfterFunc(10*time.Millisecond+time.Millisecond/2, func() { // the frame is there, and nothing was answered
			n.Link("service").Up.Freeze()
			n.Link("service").Cut()
			time.AfterFunc(time.Second, n.Link("service").Mend)
		})
		for _, err := range each(16, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			body := fmt.Sprintf("%d %dms", i, 1+i%8)
			got, err := call(ctx, []byte(body))
			if err != nil {
				return err
			}
			assert.Equal(t, string(got), body)
			return nil
		}) {
			assert.NoError(t, err)
		}
		w.once(t, 16, 16)
		noneLeft(t, service, caller)
	})
}

// Nobody there any more: the calls go alone, and say that they were not executed.
func TestBatchBubble_nobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, service, caller := eagerFar(t)
		serve(t, service, "svc.slow", rawEndpoint(echo))
		assert.NoError(t, service.Stop(t.Context(), "svc.slow"))
		call := echoer(caller, "svc.slow")
		start := time.Now()
		for _, err := range each(40, func(int) error { _, err := call(patient(t), nil); return err }) {
			failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		}
		assert.Equal(t, time.Since(start).String(), "20ms") // two round trips to the broker
		noneLeft(t, service, caller)
	})
}

// A bus that is closed ends its calls, in frames or on the way to one.
func TestBatchBubble_closed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := eagerFar(t)
		caller := n.Connect("closed", quiet(), bus.Eager())
		w := newWaits()
		serve(t, service, "svc.slow", rawEndpoint(w.handle))
		call := echoer(caller, "svc.slow")
		var ends atomic.Int32
		for i := range 100 {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond / 2)
				_, err := call(patient(t), fmt.Appendf(nil, "%d 30s", i))
				e, ok := errors.AsType[*endpoint.Error](err)
				assert.True(t, ok && e.Reason() == endpoint.ReasonConnectionClosed, fmt.Sprint(err)) // the bus's, or the connection's own
				ends.Add(1)
			}()
		}
		time.Sleep(15 * time.Millisecond) // before an ack, and what it would have asked
		assert.NoError(t, caller.Close())
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, ends.Load(), int32(100))
		w.once(t, 1, 50)
		time.Sleep(time.Minute)
		assert.Equal(t, fmt.Sprint(caller.Slots(), caller.FrameSlots(), caller.Tombs()), "0 0 0")
	})
}
