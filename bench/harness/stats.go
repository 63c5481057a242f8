package harness

import (
	"math"
	"slices"
)

// Confidence of the intervals, where there are samples enough for it: six.
const Confidence = 0.95

// Median returns the middle of the samples, NaN of none.
func Median(samples []float64) float64 {
	n := len(samples)
	if n == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// Interval returns a confidence interval of the median by order statistics, which asks nothing of how the samples are
// distributed: the k-th smallest and k-th largest, for the greatest k with at least the confidence. Fewer than six samples
// have no such k; the interval is all of them then, and claims less.
func Interval(samples []float64) (low, high float64) {
	n := len(samples)
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	k := depth(n)
	return s[k], s[n-1-k]
}

// depth is how many samples may be left out at each end. The median lies below the k-th smallest with the probability
// that fewer than k of n coins show heads.
func depth(n int) int {
	k, term, tail := 0, math.Pow(0.5, float64(n)), 0.0
	for {
		tail += term // P(heads <= k)
		if 2*tail > 1-Confidence {
			return max(k-1, 0)
		}
		term *= float64(n-k) / float64(k+1)
		k++
	}
}

// Ratios divides round by round; rounds that lack one of the two are left out.
func Ratios(of, than []*Result, metric func(*Result) float64) []float64 {
	var ratios []float64
	for i := range min(len(of), len(than)) {
		if of[i] == nil || than[i] == nil {
			continue
		}
		if d := metric(than[i]); d > 0 {
			ratios = append(ratios, metric(of[i])/d)
		}
	}
	return ratios
}

// Values takes one figure of each round.
func Values(of []*Result, metric func(*Result) float64) []float64 {
	var values []float64
	for _, r := range of {
		if r != nil {
			values = append(values, metric(r))
		}
	}
	return values
}
