package uplink

import (
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A system call for each request is what a client of many callers spends most on. So callers only append to the
// connection's buffer. The first one steps back once, so that all who are about to send can, and then writes what is there:
//
//	Put ──► buf ──► somebody gathers, or writes: it takes this along
//	           └──► nobody does: step back, attempt ──► network
//	                                           └──────► drain          what does not go at once
//
// Requests without headers are put there as they stand on the wire, without nats.go: its lock is what they would wait for,
// and its flusher writes as soon as it has one.

const (
	tooLong   = 200 * time.Microsecond // for a step back, when others have something to send as well
	worth     = 20 * time.Microsecond  // of stepping back, for each frame that it gathers
	leastRest = time.Millisecond       // without stepping back, after one that took too long
	mostRest  = time.Second
	restMore  = 8 // times as long, after the next one: what busy processors take is lost for all who wait
)

// Gatherer knows whether it pays to step back. It is guarded by a lock of those who do.
type Gatherer struct {
	until   time.Time     // nobody steps back before
	rest    time.Duration // for how long, after the next that takes too long
	crowded atomic.Bool   // the program's own work keeps the processors busy
}

// Put appends a message, for which room was reserved, and has it written. It does not wait for the network. It returns what
// the clock says, as far as that is known without asking it again.
func (o *Outlet) Put(head, body []byte, now time.Time) (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enqueue(head, body); err != nil || o.writing || o.gathering {
		return now, err
	}
	if o.gather.Pays(now) {
		now = o.stepBack(now)
	}
	o.push()
	return now, nil
}

// Hold has what is put wait for Let; false where somebody gathers already, or there is no outlet.
func (o *Outlet) Hold() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	held := !o.gathering
	o.gathering = true
	return held
}

// Let writes what was held.
func (o *Outlet) Let() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gathering = false
	o.push()
}

// PutFrame is Put for who has gathered already: so many calls. It writes where somebody else gathers only if much waits.
func (o *Outlet) PutFrame(head, body []byte, calls int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.enqueue(head, body)
	o.frames += calls - 1 // one was counted
	if err != nil || o.writing || o.gathering && o.held < writeChunk {
		return err
	}
	o.push()
	return nil
}

// enqueue appends a message (lock held).
func (o *Outlet) enqueue(head, body []byte) error {
	switch {
	case o.closed:
		return net.ErrClosed
	case o.err != nil || !o.up.Load():
		return nats.ErrDisconnected
	}
	o.buf = append(append(append(o.buf, head...), body...), "\r\n"...)
	o.held += len(head) + len(body) + 2
	o.frames++
	return nil
}

// stepBack lets others put something, and learns whether it was worth it (lock held). It returns the time.
func (o *Outlet) stepBack(since time.Time) time.Time {
	before := o.frames
	o.gathering = true
	o.mu.Unlock()
	runtime.Gosched()
	now := time.Now()
	o.mu.Lock()
	o.gathering = false
	o.gather.Judge(now, now.Sub(since), tooLong, o.frames-before)
	return now
}

// Pays reports whether to step back.
func (g *Gatherer) Pays(now time.Time) bool { return now.After(g.until) }

// Judge decides whether to step back again, by what it took and what was got by it. Where the program's own work keeps the processors
// busy, which it returns, who steps back is only resumed after it, and all that was gathered waits so long. That is not told from a
// moment that the system took away, so the rest is short at first and grows.
func (g *Gatherer) Judge(now time.Time, took, most time.Duration, got int) (crowded bool) {
	switch {
	case took > most && time.Duration(got)*worth < took:
		g.rest = min(max(restMore*g.rest, leastRest), mostRest)
		g.until = now.Add(g.rest)
	default:
		g.rest /= 2
	}
	if crowded = g.rest >= leastRest; g.crowded.Load() != crowded {
		g.crowded.Store(crowded)
	}
	return crowded
}

// Crowded reports whether the program's own work keeps the processors busy, as far as those who send have noticed. A nil outlet has
// noticed nothing.
func (o *Outlet) Crowded() bool { return o != nil && o.gather.crowded.Load() }

// Crowd notes that the program's own work keeps the processors busy, until those say otherwise who step back here, and nobody does before
// the given time.
func (o *Outlet) Crowd(until time.Time) {
	if o == nil || o.Crowded() && until.IsZero() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gather.crowded.Store(true)
	if until.After(o.gather.until) {
		o.gather.until = until
	}
}

// push writes what was gathered (lock held, and not while it writes).
func (o *Outlet) push() {
	for len(o.buf) > 0 && !o.writing && o.err == nil {
		out := o.buf
		o.buf, o.spare, o.writing = o.spare[:0], nil, true // it is in use now, so nobody may find it there
		o.mu.Unlock()
		n, err := o.attempt(out)
		o.mu.Lock()
		o.writing = false
		o.held -= n
		o.drained.Broadcast()
		o.Release(n)
		switch {
		case err != nil:
			o.giveUp(err)
		case n < len(out) && o.err == nil:
			o.buf = append(out[n:], o.buf...)
			o.linger()
		case cap(out) <= 16*writeChunk:
			o.spare = out[:0]
		}
	}
	if o.closed && !o.writing && o.err == nil {
		_ = o.Conn.Close()
	}
}

// Ready reports whether requests may be put into it: its handshake is over, and the broker was told of what is subscribed.
func (o *Outlet) Ready() bool { return o.ready.Load() }

// prepare makes it ready. A connection is made under the same lock of nats.go's that its state is changed under.
func (o *Outlet) prepare() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready.Store(o.plain)
}
