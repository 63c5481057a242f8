package bustest_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// death is what became of the calls around the moment that half of the service's processes were killed.
type death struct {
	lost   []time.Duration // of acked calls, from the kill to their error
	unsure int             // not acked: they ended by their deadline
}

// Row 6: two of four processes are killed while calls go on. What fails was in flight at one of them: whoever knew of that
// learns it within a fraction of a second, the few others by their deadline. Of what may be tried again, nothing fails.
func TestRow06ProcessesKilled(t *testing.T) {
	rounds := 2
	if full() {
		rounds = 20
	}
	s := bustest.Server(t)
	services := make([]*process, 4)
	for i := range services {
		services[i] = start(t, "service", s.URL())
	}
	var all death
	for range rounds {
		d := killTwo(t, s.URL(), services)
		all.lost = append(all.lost, d.lost...)
		all.unsure += d.unsure
		for i := range 2 {
			services[i] = start(t, "service", s.URL())
		}
		slices.Reverse(services) // the others' turn
	}
	slices.Sort(all.lost)
	at := func(share float64) time.Duration {
		return all.lost[min(int(share*float64(len(all.lost))), len(all.lost)-1)]
	}
	assert.True(t, len(all.lost) > 0, "somebody was there")
	t.Logf("%d kills of two: %d acked calls lost, told after p50 %v, p99 %v, at most %v; %d were not acked yet and ended by their deadline",
		rounds, len(all.lost), at(0.5), at(0.99), at(1), all.unsure)
	assert.True(t, all.unsure <= 2*len(all.lost), "most were acked")
	assert.True(t, at(0.5) < 250*time.Millisecond, "in time")
}

func killTwo(t *testing.T, url string, services []*process) (d death) {
	t.Helper()
	bare := raw(dial(t, url), "svc.work")
	patient := raw(dial(t, url), "svc.work", endpoint.Idempotent(), endpoint.With(middleware.Retry(middleware.RetryPolicy{})))
	l := &load{callers: []endpoint.Unary[[]byte, []byte]{bare, patient}, rate: 800, limit: 2 * time.Second, body: []byte("50ms"), observe: true}
	var began time.Time
	var killed time.Duration
	l.run(t, 0, func() error {
		began = time.Now()
		l.await(400) // probes know the instances
		l.duringf("killed")
		killed = time.Since(began)
		if err := errors.Join(services[0].Process.Kill(), services[1].Process.Kill()); err != nil {
			return err
		}
		l.await(400)
		return nil
	})
	for _, p := range services[:2] {
		_ = p.Wait()
	}
	for _, r := range l.failures() {
		assert.Equal(t, r.caller, 0, "may be tried again:", r.String())
		assert.Equal(t, endpoint.OutcomeOf(r.err), endpoint.MaybeExecuted, r.String())
		assert.True(t, r.begin < killed+100*time.Millisecond, "was in flight:", r.String())
		if errors.Is(r.err, endpoint.DeadlineExceeded) {
			assert.Equal(t, r.instance, "", "nobody had it:", r.String())
			d.unsure++
			continue
		}
		e, ok := errors.AsType[*endpoint.Error](r.err)
		assert.True(t, ok && e.Code == endpoint.Unavailable && e.Reason() == endpoint.ReasonInstanceLost, r.String())
		assert.True(t, r.instance == services[0].said || r.instance == services[1].said, "was there:", r.String())
		d.lost = append(d.lost, r.begin+r.took-killed)
		assert.True(t, r.begin+r.took-killed < 2*time.Second, "in time:", r.String())
	}
	return d
}
