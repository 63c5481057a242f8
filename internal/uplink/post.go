package uplink

import "time"

// Who sends one message after the other would pay for a system call each. Where they come fast, Post only appends, and writes when
// there is much, when who sends has to wait, and every now and then:
//
//	Post ──► buf ──► seldom: written at once
//	          └────► often: when it is full, Flush, or after lag

const (
	plenty = 32 << 10               // bytes that are worth a system call
	often  = 20 * time.Microsecond  // between two messages that come fast
	lag    = 200 * time.Microsecond // that a message waits at most
	burst  = 4                      // messages that come fast one after the other, or within a lag
)

// poster is what an outlet knows of those who post.
type poster struct {
	posted time.Time // the last one, as long as they are written at once
	fast   int       // how many came fast; from burst on they wait
	since  int       // how many came since the timer looked
	timer  *time.Timer
}

// Post is Put for who has more to say soon.
func (o *Outlet) Post(head, body []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enqueue(head, body); err != nil || o.writing || o.gathering {
		return err
	}
	if o.fast < burst {
		now := time.Now()
		if o.fast++; now.Sub(o.posted) > often {
			o.fast = 0
		}
		o.posted = now
		if o.fast == burst {
			o.since = 0
			o.timer = reset(o.timer, lag, o.look)
		}
	}
	if o.since++; o.fast < burst || len(o.buf) >= plenty {
		o.push()
	}
	return nil
}

// reset sets a timer, and makes it the first time.
func reset(t *time.Timer, d time.Duration, f func()) *time.Timer {
	if t == nil {
		return time.AfterFunc(d, f)
	}
	t.Reset(d)
	return t
}

// look is the timer of those who post.
func (o *Outlet) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since < burst || o.closed || o.err != nil {
		o.fast = 0
	} else {
		o.timer.Reset(lag)
	}
	o.since = 0
	if !o.writing && !o.gathering {
		o.push()
	}
}

// Flush writes what was posted. A nil outlet has nothing to write.
func (o *Outlet) Flush() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attempt != nil && !o.writing && !o.gathering {
		o.push()
	}
}

// Lay is Put for a reply of who reads, who has more to say soon and lays off then. Room is reserved.
func (o *Outlet) Lay(head, body []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enqueue(head, body); err != nil || o.writing || o.gathering || o.lays.Load() && len(o.buf) < plenty {
		return err
	}
	o.push()
	return nil
}

// Lays reports whether who reads has replies to lay.
func (o *Outlet) Lays() bool { return o.lays.Load() }

// layOff writes what was laid.
func (o *Outlet) layOff() {
	o.lays.Store(false)
	o.Flush()
}
