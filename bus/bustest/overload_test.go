package bustest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// works is an endpoint over a bus that runs some calls at once, each for a time.
type works struct {
	places int
	takes  time.Duration
	call   endpoint.Unary[*addRequest, *addResponse]
}

// patience is that of the callers of works.
const patience = 500 * time.Millisecond

func (w *works) capacity() float64 { return float64(w.places) / w.takes.Seconds() }

func (w *works) open(t testing.TB, service, caller *bus.Bus, opts ...endpoint.Option) {
	t.Helper()
	assert.NoError(t, service.Serve("svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
		<-time.After(w.takes)
		return add(ctx, r)
	}, append(opts, endpoint.Concurrency(w.places))...)))
	w.call = endpoint.Caller[*addRequest, *addResponse](caller, "svc.add")
}

// account is how calls ended.
type account struct {
	mu                  sync.Mutex
	good, late, unknown int
	refused             []time.Duration // after how long
}

func (a *account) add(err error, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch e, _ := errors.AsType[*endpoint.Error](err); {
	case err == nil:
		a.good++
	case e.Code == endpoint.ResourceExhausted && e.Outcome() == endpoint.NotExecuted && e.RetryAfter > 0:
		a.refused = append(a.refused, took)
	case e.Code == endpoint.DeadlineExceeded:
		a.late++
	default:
		a.unknown++
	}
}

// load calls steadily for a time, and waits for all. It returns good calls per second.
func (w *works) load(t testing.TB, perSecond float64, d time.Duration) (*account, float64) {
	t.Helper()
	a := &account{}
	var wg sync.WaitGroup
	start := time.Now()
	for sent := 0; time.Since(start) < d; <-time.After(time.Millisecond) {
		for ; float64(sent) < perSecond*time.Since(start).Seconds(); sent++ {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				begin := time.Now()
				_, err := w.call(ctx, &addRequest{})
				a.add(err, time.Since(begin))
			})
		}
	}
	wg.Wait()
	slices.Sort(a.refused)
	assert.Equal(t, a.unknown, 0)
	return a, float64(a.good) / d.Seconds()
}

// overload returns the goodput at ten times the capacity against that at the capacity, after how long refusals come, and what
// failed from one second after it was over.
func (w *works) overload(t testing.TB, d time.Duration) (goodput float64, refusal time.Duration, after int) {
	t.Helper()
	_, peak := w.load(t, w.capacity(), d)
	a, good := w.load(t, 10*w.capacity(), d)
	_, _ = w.load(t, 0.9*w.capacity(), time.Second)
	calm, _ := w.load(t, 0.9*w.capacity(), d)
	refusal = a.refused[len(a.refused)*99/100]
	t.Logf("%.1f/s of %.1f/s at its best (of %.0f), %d refused, 99 %% of them within %v, %d late; when it was over, %d refused and %d late",
		good, peak, w.capacity(), len(a.refused), refusal, a.late, len(calm.refused), calm.late)
	return good / peak, refusal, len(calm.refused) + calm.late
}

// admissions are the ways to keep a service upright: a backlog that is short, the limit that finds itself, and both. What
// is refused because it waited, has waited: for longest where the backlog is long, as it is by default.
var admissions = map[string]struct {
	opts    []endpoint.Option
	refusal time.Duration // of 99 of 100
}{
	"backlog":  {[]endpoint.Option{endpoint.Backlog(4, 400*time.Millisecond)}, 5 * time.Millisecond},
	"adaptive": {[]endpoint.Option{endpoint.With(middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{}))}, patience},
	"both": {[]endpoint.Option{
		endpoint.Backlog(4, 400*time.Millisecond), endpoint.With(middleware.AdaptiveConcurrency(middleware.AdaptivePolicy{})),
	}, 50 * time.Millisecond},
}

// At ten times its capacity a service goes on as at its best, its callers hear at once, and a second later it is over.
func TestOverloadInVirtualTime(t *testing.T) {
	for name, a := range admissions {
		for _, places := range []int{1, 4, 20} {
			t.Run(fmt.Sprintf("%s/%d", name, places), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := bustest.NewNet(t)
					w := &works{places: places, takes: time.Duration(places) * 10 * time.Millisecond}
					w.open(t, n.Connect("service"), n.Connect("caller"), a.opts...)
					goodput, refusal, after := w.overload(t, 3*time.Second)
					assert.True(t, goodput >= 0.95, fmt.Sprintf("%.3f", goodput))
					assert.True(t, refusal < a.refusal, refusal.String())
					assert.Equal(t, after, 0, "when it is over")
				})
			})
		}
	}
}

// The same on real cores, over sockets. What a busy machine does says nothing.
func TestOverload(t *testing.T) {
	if !full() {
		t.Skip("compares rates in real time: POSTBUS_FULL=1 runs it")
	}
	s := bustest.Server(t)
	w := &works{places: 10, takes: 20 * time.Millisecond}
	w.open(t, dial(t, s.URL()), dial(t, s.URL()), endpoint.Backlog(10, 400*time.Millisecond))
	goodput, refusal, _ := w.overload(t, 10*time.Second)
	t.Logf("goodput %.0f %% of the peak", 100*goodput)
	assert.True(t, goodput >= 0.9, "goodput")
	assert.True(t, refusal < patience, refusal.String())
}
