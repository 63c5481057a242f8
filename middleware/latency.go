package middleware

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// latencies knows a high percentile of the latencies seen lately. To observe one costs two atomic additions; every 64th
// also counts anew.
//
// It is a histogram with eight buckets for each power of two, so that a percentile is at most an eighth too long, which
// is the side that sends less. It forgets by halving all counts when there are enough of them, but not before some
// seconds have passed: a caller that calls rarely needs its few samples, a busy one should not look at a blink.
type latencies struct {
	buckets [latencyBuckets]atomic.Uint32
	seen    atomic.Uint32
	tail    atomic.Int64 // the percentile; 0 while there are too few samples

	mu     sync.Mutex
	halved time.Time
}

const (
	latencyUnit    = 14 // 2^14 ns, 16 µs, is the width of the first buckets
	latencySub     = 3  // 2^3 buckets for each power of two
	latencyMost    = 22 // powers of two: the last bucket ends at 2^39 ns, 9 minutes, and takes all that is longer
	latencyBuckets = (latencyMost + 2) << latencySub
	latencyEvery   = 64 // samples between two counts
	latencyHalve   = 5 * time.Second
	latencyBeyond  = 20 // samples beyond the percentile that are enough to know it well
	latencyLeast   = 2  // samples beyond the percentile that are enough to begin
)

// bucketOf returns the bucket of a latency.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0)) >> latencyUnit
	if v < 1<<latencySub {
		return int(v)
	}
	power := bits.Len64(v) - latencySub - 1
	return min((power+1)<<latencySub+int(v>>power)&(1<<latencySub-1), latencyBuckets-1)
}

// bucketEnd returns the latency at which a bucket ends.
func bucketEnd(i int) time.Duration {
	power, sub := i>>latencySub-1, i&(1<<latencySub-1)
	if power < 0 {
		return time.Duration(sub+1) << latencyUnit
	}
	return time.Duration(1<<latencySub+sub+1) << power << latencyUnit
}

// observe takes a latency; share is the part that the percentile leaves beyond.
func (l *latencies) observe(d time.Duration, share float64) {
	l.buckets[bucketOf(d)].Add(1)
	if l.seen.Add(1)%latencyEvery == 0 && l.mu.TryLock() {
		l.count(share)
		l.mu.Unlock()
	}
}

// count finds the percentile, and halves what there is if it is time.
func (l *latencies) count(share float64) {
	var total uint64
	for i := range l.buckets {
		total += uint64(l.buckets[i].Load())
	}
	if float64(total)*share >= latencyLeast {
		beyond := float64(total) * share
		i := latencyBuckets - 1
		for sum := 0.0; i > 0; i-- {
			if sum += float64(l.buckets[i].Load()); sum > beyond {
				break
			}
		}
		l.tail.Store(int64(bucketEnd(i)))
	}
	if now := time.Now(); float64(total)*share > 2*latencyBeyond && now.Sub(l.halved) >= latencyHalve {
		l.halved = now
		for i := range l.buckets { // others add meanwhile, nobody else takes away
			n := l.buckets[i].Load()
			l.buckets[i].Add(-(n / 2))
		}
	}
}

// percentile returns the latency that all but the share of calls stay below; 0 if that is not known yet.
func (l *latencies) percentile() time.Duration { return time.Duration(l.tail.Load()) }
