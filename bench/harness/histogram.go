package harness

import (
	"math/bits"
	"sync"
	"time"
)

const (
	steps   = 64 // in an octave: the error is below 1.6 %
	octaves = 36 // up to an hour
)

// Histogram counts durations. The zero value is ready for use, and safe for concurrent use.
type Histogram struct {
	mu      sync.Mutex
	buckets [octaves * steps]uint32
	count   uint64
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	i := bucket(d)
	h.mu.Lock()
	h.buckets[i]++
	h.count++
	h.mu.Unlock()
}

// Merge adds what o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range &o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
}

// Count is how many were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Quantile returns the duration that a share q of all does not exceed, as the lower bound of its bucket; 0 of none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	var seen uint64
	for i, n := range &h.buckets {
		seen += uint64(n)
		if seen > rank || seen == h.count && n > 0 {
			return lowest(i)
		}
	}
	return 0
}

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < steps {
		return int(v)
	}
	octave := bits.Len64(v) - bits.Len64(steps-1)
	return min(octave*steps+int(v>>(octave-1))&(steps-1), octaves*steps-1)
}

func lowest(i int) time.Duration {
	if i < steps {
		return time.Duration(i)
	}
	return time.Duration(i%steps|steps) << (i/steps - 1)
}
