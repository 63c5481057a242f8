package middleware

import (
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// BudgetPolicy says how many attempts there may be beyond the first ones of calls. The zero value is the good default.
type BudgetPolicy struct {
	// Ratio is the part of the calls that may be tried again. By default 0.1, one in ten. Negative means none.
	Ratio float64
	// PerSecond is what may be tried again whatever the number of calls, so that a caller that calls rarely may retry
	// at all. By default 10. Negative means none.
	PerSecond float64
	// Window is the time over which both are counted: PerSecond times Window may be used at once. By default 10 seconds;
	// at least a millisecond.
	Window time.Duration
	// Report is told what is left, a number of attempts, whenever one was taken or refused: the name is "retry_budget",
	// the subject that of the call. It runs in the call's goroutine and must be quick. By default nobody is told.
	Report func(name, subject string, value float64)
}

// Budget bounds retries and hedges together, so that a failing service does not get a multiple of its load. In each
// window there may be Ratio times as many further attempts as there were calls, plus PerSecond for each second:
// for every interval of the window's length that ends with a further attempt, attempts ≤ Ratio × calls + PerSecond × Window.
// Counting is done in tenths of a window, always to the safe side.
//
// A Budget is shared by giving it to several policies. The zero value is ready, with the defaults of [BudgetPolicy]. It is
// safe for concurrent use and must not be copied.
type Budget struct {
	policy BudgetPolicy
	once   sync.Once
	begin  time.Time
	slot   time.Duration
	floor  float64 // PerSecond times Window

	calls [budgetSlots]budgetCount
	mu    sync.Mutex // orders those that take
	taken [budgetSlots]budgetCount
	last  atomic.Uint64 // the slot in which one was taken last, 0 for none
}

// budgetParts is the number of slots of a window. One slot more holds the part of the window before the current, partial one.
const (
	budgetParts = 10
	budgetSlots = budgetParts + 1
)

// NewBudget makes a budget. The zero policy gives 10 % of calls plus 10/s, over 10 s.
func NewBudget(p BudgetPolicy) *Budget { return &Budget{policy: p} }

func (b *Budget) start(now time.Time) {
	b.once.Do(func() {
		p := &b.policy
		if p.Ratio == 0 {
			p.Ratio = 0.1
		}
		if p.PerSecond == 0 {
			p.PerSecond = 10
		}
		if p.Window <= 0 {
			p.Window = 10 * time.Second
		}
		p.Ratio, p.PerSecond = max(p.Ratio, 0), max(p.PerSecond, 0)
		b.slot = max(p.Window, time.Millisecond) / budgetParts
		b.floor = p.PerSecond * (b.slot * budgetParts).Seconds()
		b.begin = now
	})
}

// at returns the number of the slot of a time, from 1 on; slot 0 is that of a counter never used.
func (b *Budget) at(now time.Time) uint64 {
	b.start(now)
	return uint64(max(now.Sub(b.begin), 0)/b.slot) + 1
}

// deposit counts a call. It takes no lock: every call does it.
func (b *Budget) deposit(at time.Time) {
	now := b.at(at)
	b.calls[now%budgetSlots].add(now)
}

// left returns how many further attempts there may be. Calls are counted over the shorter time, attempts over the longer.
func (b *Budget) left(now uint64) float64 {
	var calls, taken uint64
	for i := range b.calls {
		calls += b.calls[i].since(now, budgetParts)
		taken += b.taken[i].since(now, budgetSlots)
	}
	return b.floor + b.policy.Ratio*float64(calls) - float64(taken)
}

// empty reports that take would say no.
func (b *Budget) empty(at time.Time) bool {
	now := b.at(at)
	if last := b.last.Load(); b.floor >= 1 && (last == 0 || now >= last+budgetSlots) {
		return false // the good days: every call that may be tried again asks
	}
	return b.left(now) < 1
}

// take asks for one further attempt of a call.
func (b *Budget) take(c *endpoint.Call) bool {
	b.mu.Lock()
	now := b.at(time.Now())
	left := b.left(now)
	ok := left >= 1
	if ok {
		b.taken[now%budgetSlots].add(now)
		b.last.Store(now)
		left--
	}
	b.mu.Unlock()
	if b.policy.Report != nil {
		b.policy.Report("retry_budget", c.Subject, max(left, 0))
	}
	return ok
}

// budgetCount is one slot's number and what was counted in it, half a word each: to turn it over to the next round needs
// no lock, then.
type budgetCount struct{ word atomic.Uint64 }

func (n *budgetCount) add(slot uint64) {
	for {
		old := n.word.Load()
		next := slot<<32 | 1
		if old>>32 == slot&(1<<32-1) {
			next = old + 1
		} else if ahead := uint32(old>>32) - uint32(slot); ahead < 1<<16 {
			return // a straggler, whose slot has gone already
		}
		if n.word.CompareAndSwap(old, next) {
			return
		}
	}
}

// since returns the count if it is one of the last slots up to now.
func (n *budgetCount) since(now, slots uint64) uint64 {
	word := n.word.Load()
	if age := uint32(now) - uint32(word>>32); word == 0 || uint64(age) >= slots {
		return 0
	}
	return word & (1<<32 - 1)
}
