package bus

import (
	"time"

	"postbus.example/endpoint"
)

// acks lets the dispatcher ack from now on.
func (d *dispatcher) acks(ack func(*control)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ack = ack
}

// line puts a worker behind the others that a sweep is to look at, or gives it what a sweep made already (lock held).
func (d *dispatcher) line(w *worker, j *job, fresh bool) {
	w.received = j.received
	if !fresh {
		w.control.Store(j.control)
		return
	}
	w.inLine, w.prev, w.next = true, d.last, nil
	if d.last != nil {
		d.last.next = w
	} else {
		d.first = w
	}
	d.last = w
}

// forget is for a job that has come to its end (lock held).
func (d *dispatcher) forget(w *worker) {
	if w.control.Load() != nil {
		w.control.Store(nil)
	}
	d.unline(w)
}

// unline takes a worker out of the line (lock held). It may be out already.
func (d *dispatcher) unline(w *worker) {
	if !w.inLine {
		return
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		d.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		d.last = w.prev
	}
	w.inLine, w.prev, w.next = false, nil, nil
}

// sweep acks what has been here for long enough.
func (d *dispatcher) sweep() {
	d.mu.Lock()
	now := time.Now()
	var due []*control
	for ; d.swept < d.n; d.swept++ {
		j := d.at(d.swept)
		if now.Sub(j.received) < ackAfter {
			break
		}
		j.control = held(j)
		due = append(due, j.control)
	}
	for w := d.first; w != nil && now.Sub(w.received) >= ackAfter; {
		next := w.next
		if k := d.claim(w); k != nil {
			due = append(due, k)
		}
		w = next
	}
	if d.sweeps = d.swept < d.n || d.first != nil; d.sweeps {
		d.sweeper.Reset(max(d.nextDue(now), ackPause))
	}
	ack := d.ack
	d.mu.Unlock()
	for _, k := range due {
		ack(k)
		k.mu.Unlock()
	}
}

func held(j *job) *control {
	k := &control{arrival: j.arrival}
	k.mu.Lock()
	return k
}

// claim makes a running job's control, nil if the job is not under way yet or answered already (lock held). One that is not
// under way stays in line.
func (d *dispatcher) claim(w *worker) *control {
	if c := w.call.Load(); c == nil || c == silent {
		return nil
	}
	k := held(&job{arrival: w.has})
	w.control.Store(k)
	c := w.call.Load()
	if c == silent { // answered meanwhile: it may wait for us
		w.control.Store(nil)
		k.mu.Unlock()
		return nil
	}
	k.call = c
	d.unline(w)
	return k
}

// nextDue returns in how long the oldest that no sweep has acked is due (lock held).
func (d *dispatcher) nextDue(now time.Time) time.Duration {
	wait := ackAfter
	if d.swept < d.n {
		wait = min(wait, ackAfter-now.Sub(d.at(d.swept).received))
	}
	if d.first != nil {
		wait = min(wait, ackAfter-now.Sub(d.first.received))
	}
	return wait
}

// begin says that the worker's job runs with a context that may be canceled; false when its caller has left already.
func (w *worker) begin(c *endpoint.Call) bool {
	w.call.Store(c)
	if k := w.control.Load(); k != nil {
		return k.attach(c)
	}
	return true
}

// speak says that the job is to be answered now: an ack is out, or will not be sent any more. It may be called twice.
func (w *worker) speak() (call uint64) {
	if w.call.Load() != silent {
		w.call.Store(silent)
	}
	if k := w.control.Load(); k != nil {
		return k.settled()
	}
	return 0
}

// held reports whether a sweep may hold the call of a job that has been spoken for: where it saw the call, it has left its
// control before.
func (w *worker) held() bool { return w.control.Load() != nil }

// speak is the same for a job that no worker took.
func (j *job) speak() (call uint64) {
	if j.control != nil {
		return j.control.settled()
	}
	return 0
}
