package harness_test

import (
	"math"
	"math/big"
	"testing"

	"postbus.example/bench/harness"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		samples []float64
		want    float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{9, 1, 5, 6}, 5.5},
	} {
		if got := harness.Median(tc.samples); got != tc.want {
			t.Errorf("Median(%v) = %v, want %v", tc.samples, got, tc.want)
		}
	}
	if !math.IsNaN(harness.Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

// TestInterval holds the interval to its promise, by exact arithmetic: it covers the median with the confidence, and leaving
// out one more sample at each end would not.
func TestInterval(t *testing.T) {
	for n := 6; n <= 101; n++ {
		low, high := harness.Interval(distinct(n))
		k := int(low)
		if int(high) != n-1-k {
			t.Fatalf("n=%d: [%v, %v] is not symmetric", n, low, high)
		}
		if c := coverage(n, k); c < harness.Confidence {
			t.Errorf("n=%d: leaving out %d covers %.4f", n, k, c)
		}
		if c := coverage(n, k+1); c >= harness.Confidence {
			t.Errorf("n=%d: leaving out %d would cover %.4f as well", n, k+1, c)
		}
	}
}

func TestInterval_few(t *testing.T) {
	low, high := harness.Interval([]float64{2, 9, 4})
	if low != 2 || high != 9 {
		t.Errorf("[%v, %v], want all of three samples", low, high)
	}
	if low, high := harness.Interval(nil); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("[%v, %v] of nothing", low, high)
	}
}

// distinct are the numbers below n, backwards, so that a sample's value is its rank.
func distinct(n int) []float64 {
	samples := make([]float64, n)
	for i := range samples {
		samples[i] = float64(n - 1 - i)
	}
	return samples
}

// coverage is the probability that the median lies between the samples of rank k and n-1-k.
func coverage(n, k int) float64 {
	all := new(big.Int).Lsh(big.NewInt(1), uint(n))
	outside := new(big.Int)
	for i := range k + 1 {
		outside.Add(outside, new(big.Int).Binomial(int64(n), int64(i)))
	}
	f, _ := new(big.Rat).SetFrac(outside, all).Float64()
	return 1 - 2*f
}

func TestRatios(t *testing.T) {
	rate := func(r *harness.Result) float64 { return float64(r.Calls) }
	of := []*harness.Result{{Calls: 10}, nil, {Calls: 30}, {Calls: 40}, {Calls: 50}}
	than := []*harness.Result{{Calls: 5}, {Calls: 5}, {Calls: 0}, {Calls: 80}, nil}
	got := harness.Ratios(of, than, rate)
	if len(got) != 2 || got[0] != 2 || got[1] != 0.5 {
		t.Errorf("%v, want [2 0.5]: round by round, without those that lack one", got)
	}
	if got := harness.Values(of, rate); len(got) != 4 || got[2] != 40 {
		t.Errorf("%v, want [10 30 40 50]", got)
	}
}
