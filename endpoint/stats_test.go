package endpoint_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Every duration falls into the one bucket whose bounds enclose it.
func TestHistogramBuckets(t *testing.T) {
	for i := 1; i < endpoint.HistogramBuckets; i++ {
		assert.True(t, endpoint.BucketBound(i) > endpoint.BucketBound(i-1))
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(-10, math.MaxInt64).Draw(t, "d"))
		if rapid.Bool().Draw(t, "small") {
			d %= time.Second
		}
		var m endpoint.Meter
		m.Done(d, nil)
		h := m.Stats().Latency
		for i, n := range h.Counts {
			if n == 0 {
				continue
			}
			below := d < endpoint.BucketBound(i) || i == endpoint.HistogramBuckets-1
			above := i == 0 || d >= endpoint.BucketBound(i-1)
			if !below || !above {
				t.Fatalf("%v is in bucket %d, below %v", d, i, endpoint.BucketBound(i))
			}
		}
		if h.Count() != 1 {
			t.Fatalf("%v was counted %d times", d, h.Count())
		}
	})
}

func TestQuantile(t *testing.T) {
	var m endpoint.Meter
	var h endpoint.Histogram
	assert.Equal(t, h.Quantile(0.5), 0)
	for i := range 100 {
		m.Done(time.Duration(i+1)*time.Millisecond, nil)
	}
	h = m.Stats().Latency
	for _, q := range []float64{0, 0.5, 0.99, 1} {
		exact := time.Duration(q*99+1) * time.Millisecond
		got := h.Quantile(q)
		assert.True(t, got > exact-time.Millisecond && got <= exact*5/4+time.Millisecond, got.String(), exact.String())
	}
	assert.Equal(t, h.Quantile(7), h.Quantile(1))
	assert.Equal(t, h.Quantile(-1), h.Quantile(0))
	sum := h
	sum.Add(&h)
	assert.Equal(t, sum.Count(), 200)
	assert.Equal(t, sum.Sum, 2*h.Sum)
}

func TestMeter(t *testing.T) {
	var m endpoint.Meter
	m.Run(1)
	m.Wait(2)
	m.Refuse()
	m.Expire()
	m.Done(time.Millisecond, nil)
	m.Done(time.Millisecond, endpoint.NotFound.New("").WithReason("r"))
	m.Done(time.Millisecond, &endpoint.Error{Code: 77})
	s := m.Stats()
	assert.Equal(t, []uint64{s.Calls, s.Refused, s.Expired, s.Failures()}, []uint64{3, 1, 1, 2})
	assert.Equal(t, []int64{s.InFlight, s.Waiting, m.Running()}, []int64{1, 2, 1})
	assert.Equal(t, s.Errors, map[endpoint.Code]uint64{endpoint.NotFound: 1, endpoint.Unknown: 1})
	assert.Equal(t, s.LastError, "unknown")
}
