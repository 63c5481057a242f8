package bus

import "time"

// trust is what a dispatcher knows of whether who reads may run its jobs inline. It has to be earned, and who blocks loses it.
type trust struct {
	never  bool          // what runs may well block
	unseen int           // jobs to see before
	hand   *worker       // who reads, while it does not run any
	until  time.Time     // it is lost
	rest   time.Duration // for how long it was, after one blocked
	since  time.Time     // of what is counted:
	spent  time.Duration // on jobs run inline
}

const (
	earned     = 64                     // jobs to see
	prompt     = 20 * time.Microsecond  // a pace from which on they are not run inline
	inlineTime = 200 * time.Microsecond // for the jobs of one endpoint: what is read later waits
	leastLost  = time.Second
	mostLost   = 64 * time.Second
	tally      = 10 * time.Millisecond  // in which the jobs of an endpoint may take half of the time of who reads;
	shared     = 100 * time.Millisecond // where they take more, workers have them for so long, and other processors
)

// trusted reports whether jobs are to be run inline: nobody else is at work, and none is known to take long (lock held).
func (d *dispatcher) trusted(now time.Time) bool {
	t := &d.inline
	return !t.never && t.unseen <= 0 && d.workers == 0 && d.limit > 0 && d.pace < prompt && now.After(t.until)
}

// Distrust implements uplink.Runner: it is for a job that was run inline and blocks.
func (d *dispatcher) Distrust() {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, now := &d.inline, time.Now()
	if now.Sub(t.until) > t.rest {
		t.rest = 0
	}
	t.rest = min(max(2*t.rest, leastLost), mostLost)
	t.until = now.Add(t.rest)
}

// RunInline implements uplink.Runner. It runs what waits, unless somebody else does. What takes too long is left to workers. A
// handler that ends the goroutine gives its place back.
func (d *dispatcher) RunInline() {
	d.mu.Lock()
	if d.workers > 0 || d.n == 0 {
		d.mu.Unlock()
		return
	}
	w, returned := d.inline.hand, false
	if d.inline.hand = nil; w == nil {
		w = &worker{}
		d.join(w)
	}
	d.workers++
	defer func() {
		if !returned {
			d.mu.Lock()
			d.leave(w)
		}
		d.keepOn()
		d.mu.Unlock()
	}()
	start := time.Now()
	now := start
	for until := now.Add(inlineTime); d.n > 0 && now.Before(until); {
		now = d.next(w, now)
	}
	returned = true
	d.inline.charge(start, now)
	d.inline.hand = w
	d.workers--
	d.settle()
}

// TakeOver implements uplink.Runner: workers see to what waits.
func (d *dispatcher) TakeOver() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keepOn()
}

// keepOn hires for what waits (lock held).
func (d *dispatcher) keepOn() {
	if d.n == 0 {
		return
	}
	if d.workers < d.limit {
		d.hire()
	}
	d.attend()
}

// charge counts what was spent.
func (t *trust) charge(from, to time.Time) {
	if from.Sub(t.since) > tally {
		t.since, t.spent = from, 0
	}
	if t.spent += to.Sub(from); t.spent > tally/2 && to.After(t.until) {
		t.until = to.Add(shared)
	}
}
