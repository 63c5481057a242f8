package middleware

import (
	"sync/atomic"
	"time"
)

// tally counts how calls of a closed circuit ended: in tenths of the window, as gobreaker does, but without its lock, since
// nearly all calls go well and change nothing else.
type tally struct {
	begin     time.Time
	part      time.Duration
	good, bad [breakerBuckets]budgetCount
	row       atomic.Uint64 // failures since the last success, older ones than the window among them
}

func (n *tally) start(window time.Duration) {
	n.begin, n.part = time.Now(), window/breakerBuckets
}

// now returns the number of the current part, from 1 on.
func (n *tally) now() uint64 { return uint64(time.Since(n.begin)/n.part) + 1 }

func (n *tally) success() {
	now := n.now()
	n.good[now%breakerBuckets].add(now)
	if n.row.Load() != 0 {
		n.row.Store(0)
	}
}

func (n *tally) failure() {
	now := n.now()
	n.bad[now%breakerBuckets].add(now)
	n.row.Add(1)
}

// sum returns what lies within the window. Of failures in a row the oldest leave it first, and after all those before them:
// so there are never more of them in it than failures.
func (n *tally) sum() (calls, failures, inRow uint64) {
	now := n.now()
	for i := range n.good {
		calls += n.good[i].since(now, breakerBuckets)
		failures += n.bad[i].since(now, breakerBuckets)
	}
	return calls + failures, failures, min(n.row.Load(), failures)
}

// clear begins anew. Who counts at the same moment may be lost.
func (n *tally) clear() {
	for i := range n.good {
		n.good[i].word.Store(0)
		n.bad[i].word.Store(0)
	}
	n.row.Store(0)
}
