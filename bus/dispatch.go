package bus

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// job is one request as the subscription's callback took it.
type job struct {
	arrival
	received time.Time
	by       *worker  // nil while it waits
	control  *control // if a sweep found it waiting
}

// answered reports whether somebody else replied in the worker's place.
func (j *job) answered() bool { return j.by.answered.Load() }

// worker runs one job after the other.
type worker struct {
	wake     chan struct{}
	has      arrival     // of its job, none between two; the dispatcher's lock guards it
	answered atomic.Bool // see abandon
	started  time.Time   // its job; its own
	ended    time.Time   // where run said so
	tokens   wire.Reader // its own

	// For acks. A sweep sets control and then looks at call, the worker sets call and then looks at control: one of both sees
	// the other.
	received   time.Time // its job; with what follows guarded by the dispatcher's lock
	prev, next *worker   // in line for a sweep
	inLine     bool
	control    atomic.Pointer[control]       // of its job, if a sweep found it
	call       atomic.Pointer[endpoint.Call] // of its job; silent, or nil, before it has one and once it is answered
}

// silent stands for the call of a worker whose job has none that may be acked.
var silent = &endpoint.Call{}

// dispatcher admits the requests of one endpoint and runs them: at most limit at once, at most backlog waiting, none
// waiting longer than wait. push never blocks, so a subscription's callback may call it.
//
// Waking a goroutine costs more than a quick handler. So while handlers are quick, one worker drains the ring and others
// are added only when it does not keep up, which a watchdog sees within a millisecond, or when no worker has come back for
// another job for a while, which the next job sees; while handlers are slow, each job gets a worker at once. Parked workers
// are reused.
//
//	push ──► ring ──► worker ──► run          quick: one worker, the watchdog adds
//	  │        └────► expire ──► refuse       slow:  a worker for each job
//	  └─────────────────────────► refuse      full
//
// While they are very quick, who reads runs what it offers by itself, see trust and internal/uplink.
type dispatcher struct {
	limit, backlog int
	wait           time.Duration
	run            func(job)
	refuse         func(job, string) // with the reason; must not block
	ack            func(*control)    // nil: nothing is acked; guarded by mu

	mu      sync.Mutex
	ring    []job // waiting, oldest at head
	head, n int
	workers int // those that run or are about to
	pending int // woken and not yet at the ring
	parked  []*worker
	crew    map[*worker]bool // all of them, but for those that closing sent home
	inline  trust
	pace    time.Duration // moving average of what a job takes
	taken   int           // jobs taken since the watchdog looked
	moved   time.Time     // when one was last taken
	watch   *time.Timer
	watched bool
	oldest  *time.Timer // for what waits longest
	timed   bool
	swept   int     // of the ring, from its head: a sweep has seen these
	first   *worker // of those in line for a sweep, by the age of their jobs
	last    *worker
	sweeper *time.Timer
	sweeps  bool
	closed  bool
	ended   bool
	empty   chan struct{} // made by close, closed when the last worker left
}

const (
	quick        = 100 * time.Microsecond // a pace below makes no worker for each job
	stalled      = 100 * time.Microsecond // without a job taken, those at work are blocked
	watchEvery   = time.Millisecond
	keepsUp      = 20 // jobs a worker takes between two looks when it needs no help
	paceShift    = 4  // weight of one job in the average: 1/16
	minRing      = 16
	parkPerProcs = 16
)

// offer is push for who reads. It refuses nothing: where one of the jobs would be, it takes none of them. What it returns has
// to be run inline then.
func (d *dispatcher) offer(jobs ...job) (runs uplink.Runner, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.n+len(jobs) > d.most() {
		return nil, false
	}
	if d.trusted(jobs[0].received) {
		runs = d
	}
	for i := range jobs {
		_ = d.admit(&jobs[i], runs != nil) // which makes no room less
	}
	return runs, true
}

// most is how many jobs the ring may have (lock held): what a woken worker comes for does not wait.
func (d *dispatcher) most() int { return d.backlog + max(d.limit-d.workers, 0) + d.pending }

// push takes a job into the ring and sees to a worker for it, or refuses it when all is full.
func (d *dispatcher) push(j job) {
	d.mu.Lock()
	reason := d.admit(&j, false)
	d.mu.Unlock()
	if reason != "" {
		d.refuse(j, reason)
	}
}

// admit is push that returns why a job is to be refused, "" if it is not (lock held). What is run inline has no worker to wake.
func (d *dispatcher) admit(j *job, inline bool) (reason string) {
	free := d.limit - d.workers
	switch {
	case d.closed:
		return reasonDraining
	case d.n >= d.most():
		return reasonBacklogFull
	}
	d.put(j)
	if d.ack != nil && !d.sweeps {
		d.sweeps = true
		d.sweeper = reset(d.sweeper, ackAfter, d.sweep)
	}
	switch {
	case inline:
	case free <= 0:
		d.timeOldest()
	case d.workers == 0 || d.pace >= quick && d.pending < d.n:
		d.hire()
	case d.pending == 0 && j.received.Sub(d.moved) > stalled: // none of them comes back soon
		d.hire()
	default:
		d.attend()
	}
	return ""
}

// attend has the watchdog look, soon (lock held).
func (d *dispatcher) attend() {
	if !d.watched {
		d.watched = true
		d.taken = 0
		d.watch = reset(d.watch, watchEvery, d.look)
	}
}

// waiting returns how many jobs wait.
func (d *dispatcher) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

func reset(t *time.Timer, d time.Duration, f func()) *time.Timer {
	if t == nil {
		return time.AfterFunc(d, f)
	}
	t.Reset(d)
	return t
}

// hire wakes a parked worker or makes a new one (lock held).
func (d *dispatcher) hire() {
	d.workers++
	d.pending++
	if k := len(d.parked); k > 0 {
		w := d.parked[k-1] // the last one in is the warmest
		d.parked = d.parked[:k-1]
		w.wake <- struct{}{} // has room: only hire sends, once for each parking
		return
	}
	go d.work()
}

// look is the watchdog: it adds workers when those at work don't keep up, because handlers block or are slow.
func (d *dispatcher) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watched = d.n > 0; !d.watched {
		return
	}
	if d.taken < keepsUp*d.workers || d.n > d.taken { // too slow each, or too few for what comes
		for range min(d.n-d.pending, max(d.workers, 1), d.limit-d.workers) {
			d.hire()
		}
	}
	d.taken = 0
	d.watch.Reset(watchEvery)
	if d.workers >= d.limit {
		d.timeOldest()
	}
}

// work runs jobs until there are none. A handler that ends its goroutine takes it along, not the worker's place.
func (d *dispatcher) work() {
	w, returned := &worker{wake: make(chan struct{}, 1)}, false
	defer func() {
		if !returned {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.leave(w); d.n > 0 {
				d.hire()
			}
		}
	}()
	now := time.Now()
	d.mu.Lock()
	d.join(w)
	d.pending--
	for {
		for d.n > 0 {
			now = d.next(w, now)
		}
		if d.closed || len(d.parked) >= parkPerProcs*runtime.GOMAXPROCS(0) {
			d.leave(w)
			d.mu.Unlock()
			returned = true
			return
		}
		d.workers--
		d.parked = append(d.parked, w)
		d.mu.Unlock()
		if _, ok := <-w.wake; !ok {
			returned = true
			return
		}
		now = time.Now()
		d.mu.Lock()
		d.pending--
	}
}

// next has a worker run the job that waits longest, and returns the time (lock held, and not while it runs).
func (d *dispatcher) next(w *worker, now time.Time) time.Time {
	fresh := d.swept == 0
	j := d.take()
	j.by, w.has = w, j.arrival
	if d.ack != nil {
		d.line(w, &j, fresh)
	}
	d.taken++
	d.moved = now
	d.mu.Unlock()
	w.started = now
	d.run(j)
	now = w.over() // the next one starts here: reading the clock is not free
	d.mu.Lock()
	w.has = arrival{}
	d.forget(w)
	d.pace += (now.Sub(w.started) - d.pace) >> paceShift
	d.inline.unseen = max(d.inline.unseen-1, 0)
	return now
}

// over returns when the worker's job came to its end.
func (w *worker) over() time.Time {
	at := w.ended
	if w.ended = (time.Time{}); at.IsZero() {
		at = time.Now()
	}
	return at
}

// join counts a new worker in (lock held).
func (d *dispatcher) join(w *worker) {
	if d.crew == nil {
		d.crew = map[*worker]bool{}
	}
	d.crew[w] = true
}

// leave counts a worker out (lock held).
func (d *dispatcher) leave(w *worker) {
	delete(d.crew, w)
	d.forget(w)
	d.workers--
	d.settle()
}

// settle says that all is done, once (lock held). Timers would keep the dispatcher, and all that it knows, until they go off.
func (d *dispatcher) settle() {
	if !d.closed || d.ended || d.workers > 0 || d.n > 0 {
		return
	}
	d.ended = true
	for _, t := range []*time.Timer{d.watch, d.oldest, d.sweeper} {
		if t != nil {
			t.Stop()
		}
	}
	close(d.empty)
}

func (d *dispatcher) put(j *job) {
	if d.n == len(d.ring) {
		ring := make([]job, max(minRing, 2*d.n))
		for i := range d.n {
			ring[i] = *d.at(i)
		}
		d.ring, d.head = ring, 0
	}
	*d.at(d.n) = *j
	d.n++
}

// at is the i-th job that waits. The ring's length is a power of two.
func (d *dispatcher) at(i int) *job { return &d.ring[(d.head+i)&(len(d.ring)-1)] }

func (d *dispatcher) take() job {
	j := d.ring[d.head]
	d.ring[d.head] = job{}
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.n--
	d.swept = max(d.swept-1, 0)
	return j
}

// timeOldest sets the timer for what waits longest (lock held).
func (d *dispatcher) timeOldest() {
	if d.timed || d.n == 0 {
		return
	}
	d.timed = true
	d.oldest = reset(d.oldest, max(d.wait-time.Since(d.ring[d.head].received), 0), d.expire)
}

// expire refuses what waited too long.
func (d *dispatcher) expire() {
	var old []job
	d.mu.Lock()
	d.timed = false
	for d.n > 0 && time.Since(d.ring[d.head].received) >= d.wait {
		old = append(old, d.take())
	}
	d.timeOldest()
	d.mu.Unlock()
	d.refuseAll(old, reasonBacklogWait)
}

// close lets the workers end when nothing is left to do, and returns a channel that is closed then. What waits is still
// run, what is pushed from now on is refused. It may be called more than once.
func (d *dispatcher) close() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.empty
	}
	d.closed, d.empty = true, make(chan struct{})
	for _, w := range d.parked {
		close(w.wake)
	}
	d.parked = nil
	d.settle()
	return d.empty
}

// drop refuses all that waits.
func (d *dispatcher) drop(reason string) {
	var left []job
	d.mu.Lock()
	for d.n > 0 {
		left = append(left, d.take())
	}
	d.settle()
	d.mu.Unlock()
	d.refuseAll(left, reason)
}

// abandon hands what still runs to answer, which speaks in its place: what it replies itself comes too late. It is for a
// dispatcher that is closed and has nothing waiting.
func (d *dispatcher) abandon(answer func(arrival)) {
	var left []job
	d.mu.Lock()
	for w := range d.crew {
		if w.has.msg != nil {
			w.answered.Store(true)
			w.call.Store(silent) // no ack after the answer
			left = append(left, job{arrival: w.has, control: w.control.Load()})
		}
	}
	d.mu.Unlock()
	for _, j := range left {
		j.speak()
		answer(j.arrival)
	}
}

func (d *dispatcher) refuseAll(jobs []job, reason string) {
	for _, j := range jobs {
		d.refuse(j, reason)
	}
}
