package harness_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"postbus.example/bench/harness"
)

// TestHistogram compares with all durations, sorted: a quantile is that of the rank, and its error below 1.6 %.
func TestHistogram(t *testing.T) {
	var h harness.Histogram
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 10_000)
	for i := range all {
		all[i] = time.Duration(r.Int64N(1 << (1 + r.Int64N(36))))
		h.Add(all[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		got := h.Quantile(q)
		if got > want || float64(want-got) > 0.016*float64(want) {
			t.Errorf("quantile %v is %v, want %v or a little less", q, got, want)
		}
	}
}

func TestHistogram_edges(t *testing.T) {
	var h harness.Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	h.Add(-time.Second)
	if got := h.Quantile(1); got != 0 {
		t.Errorf("less than nothing is %v", got)
	}
	h.Add(1000 * time.Hour)
	if got := h.Quantile(1); got < time.Hour/2 {
		t.Errorf("beyond its end it says %v", got)
	}
}

func TestHistogram_together(t *testing.T) {
	var a, b harness.Histogram
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				a.Add(time.Millisecond)
			}
		})
	}
	wg.Wait()
	b.Add(time.Second)
	b.Merge(&a)
	if b.Count() != 8001 {
		t.Errorf("%d of 8001", b.Count())
	}
	if got := b.Quantile(0.5); got < 984*time.Microsecond || got > time.Millisecond {
		t.Errorf("the median is %v", got)
	}
}
