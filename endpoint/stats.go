package endpoint

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// StatsReporter gives counters: one entry for each endpoint served, and one without a Subject for the transport itself.
type StatsReporter interface{ Stats() []Stats }

// Stats are the counters of one endpoint, or of a transport, since it was made. Rates are differences of two readings.
type Stats struct {
	Service, Name, Subject string

	Calls    uint64 // finished, refused ones not included
	Errors   map[Code]uint64
	InFlight int64     // running now
	Waiting  int64     // admitted and not yet running
	Refused  uint64    // for want of room
	Expired  uint64    // their time was up before they were to run
	Latency  Histogram // of finished calls, receipt to reply

	// Of the transport itself.
	Dropped    uint64 // by the client library, unanswered
	Late       uint64 // replies that came after their call had ended, or twice
	Malformed  uint64 // messages that could not be read
	Denied     uint64 // messages that the broker would not let this client publish: requests, replies
	Reconnects uint64

	LastError string // of the last failed call, by code and reason; "" if none failed
}

// Histogram counts durations in buckets that are the same everywhere, so that those of several instances can be added.
// Bucket i holds durations below BucketBound(i), four buckets to each doubling from 1 µs up to about 45 minutes.
type Histogram struct {
	Counts [HistogramBuckets]uint64
	Sum    time.Duration
}

// HistogramBuckets is the number of buckets; the last one takes all that is longer.
const HistogramBuckets = 122

// BucketBound returns the upper bound of bucket i.
func BucketBound(i int) time.Duration {
	if i < 4 {
		return time.Duration(i+1) * time.Microsecond
	}
	octave, quarter := (i-4)/4, (i-4)%4
	return time.Duration(uint64(5+quarter)<<octave) * time.Microsecond
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0)) / uint64(time.Microsecond)
	if us < 4 {
		return int(us)
	}
	octave := bits.Len64(us) - 3
	return min(4+octave*4+int(us>>octave)-4, HistogramBuckets-1)
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 {
	var n uint64
	for _, c := range &h.Counts {
		n += c
	}
	return n
}

// Quantile returns an upper bound of the q-quantile (0.99), at most a quarter too high; 0 without counts.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank, seen := uint64(min(max(q, 0), 1)*float64(total-1))+1, uint64(0)
	for i, c := range &h.Counts {
		if seen += c; seen >= rank {
			return BucketBound(i)
		}
	}
	return BucketBound(HistogramBuckets - 1)
}

// Add merges another histogram into h.
func (h *Histogram) Add(other *Histogram) {
	for i, c := range &other.Counts {
		h.Counts[i] += c
	}
	h.Sum += other.Sum
}

// Meter counts the calls of one endpoint without a lock. Transports keep one for each endpoint. The zero value is ready;
// all methods are safe for concurrent use.
type Meter struct {
	errors   [numCodes]atomic.Uint64
	refused  atomic.Uint64
	expired  atomic.Uint64
	waiting  atomic.Int64
	inFlight atomic.Int64
	sum      atomic.Int64
	counts   [HistogramBuckets]atomic.Uint64
	last     atomic.Pointer[Error]
}

// Wait counts a call that waits (+1) or ceased to (-1).
func (m *Meter) Wait(delta int64) { m.waiting.Add(delta) }

// Run counts a call that runs (+1) or ceased to (-1).
func (m *Meter) Run(delta int64) { m.inFlight.Add(delta) }

// Running returns how many calls run.
func (m *Meter) Running() int64 { return m.inFlight.Load() }

// Refuse counts a call that found no room.
func (m *Meter) Refuse() { m.refused.Add(1) }

// Expire counts a call whose time was up before it was to run.
func (m *Meter) Expire() { m.expired.Add(1) }

// Done counts a finished call by its duration and error, nil for success.
func (m *Meter) Done(took time.Duration, err *Error) {
	m.counts[bucketOf(took)].Add(1)
	m.sum.Add(int64(took))
	if err != nil {
		m.errors[failure(err.Code)].Add(1)
		m.last.Store(err)
	}
}

// Stats reads the counters. They are read one by one, so a reading during traffic may be off by the calls in between.
func (m *Meter) Stats() Stats {
	s := Stats{
		Refused: m.refused.Load(), Expired: m.expired.Load(), InFlight: m.inFlight.Load(), Waiting: m.waiting.Load(),
		Errors: map[Code]uint64{},
	}
	for c := range m.errors {
		if n := m.errors[c].Load(); n > 0 {
			s.Errors[Code(c)] = n
		}
	}
	for i := range m.counts {
		s.Latency.Counts[i] = m.counts[i].Load()
	}
	s.Latency.Sum = time.Duration(m.sum.Load())
	s.Calls = s.Latency.Count()
	if e := m.last.Load(); e != nil {
		s.LastError = failure(e.Code).String()
		if e.reason != "" {
			s.LastError += " (" + e.reason + ")"
		}
	}
	return s
}

// Failures returns how many of the calls failed.
func (s *Stats) Failures() uint64 {
	var n uint64
	for _, c := range s.Errors {
		n += c
	}
	return n
}
