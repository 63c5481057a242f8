package bus_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Thousands of panics are as many internal errors and cost nobody else much: calls of another endpoint take about as long as
// beside as many calls that go well. The two take turns in short rounds.
func TestRow13PanicsBesideOthers(t *testing.T) {
	s := bustest.Server(t)
	service, caller := overTCP(t, s), overTCP(t, s)
	serve(t, service, "svc.panic", endpoint.New(func(_ context.Context, r *AddRequest) (*AddResponse, error) {
		if r.B == 13 {
			panic("so it goes")
		}
		return &AddResponse{}, nil
	}))
	serve(t, service, "svc.add", endpoint.New(add))
	panics, sum := adder(caller, "svc.panic"), adder(caller, "svc.add")
	const each = 250 // beside each half of a round
	rounds := scaled(4, 40)
	before := runtime.NumGoroutine()
	beside := func(b int) time.Duration {
		var wg sync.WaitGroup
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range each {
				<-tick.C
				wg.Go(func() {
					_, err := panics(t.Context(), &AddRequest{B: b})
					if b != 13 {
						assert.NoError(t, err)
						return
					}
					failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
				})
			}
		})
		took := steady(t, each*time.Millisecond, func(i int) error {
			_, err := sum(t.Context(), &AddRequest{i, 1})
			return err
		})
		wg.Wait()
		return quantile(took, 99)
	}
	var ratios []float64
	var p99s []time.Duration
	for range rounds {
		calm := beside(0)
		p99 := beside(13)
		ratios, p99s = append(ratios, float64(p99)/float64(calm)), append(p99s, p99)
	}
	slices.Sort(ratios)
	ratio, p99 := ratios[rounds/2], quantile(p99s, 50)
	t.Logf("medians of %d rounds: p99 %v, %+.0f %% beside %d panics (full: %v)", rounds, p99, 100*(ratio-1), rounds*each, full())
	assert.True(t, !full() || ratio < 3, "a machine that does nothing else")
	assert.Equal(t, caller.Slots(), 0)
	assert.Eventually(t, func() bool { // a call is counted after its reply
		st := statsOf(t, service, "svc.panic")
		return st.Calls == uint64(2*rounds*each) && st.InFlight+st.Waiting == 0 && service.Acked() == 0
	})
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.panic").Errors[endpoint.Internal] == uint64(rounds*each) })
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+150 }, "goroutines end, but for the parked ones")
}
