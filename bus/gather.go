package bus

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
//	put ──► buf ──► somebody gathers, or writes: it takes this along
//	           └──► nobody does: step back, attempt ──► network
//	                                           └──────► drain          what does not go at once
//
// Requests without headers are put there as they stand on the wire, without nats.go: its lock is what they would wait for,
// and its flusher writes as soon as it has one.

const (
	straight  = 8 << 10                // bytes of a request that are not worth copying once more
	tooLong   = 200 * time.Microsecond // for a step back, when others have something to send as well
	longest   = 4 * time.Millisecond   // for one that gathers a frame: what the system takes away at times must not send its calls alone
	worth     = 20 * time.Microsecond  // of stepping back, for each frame that it gathers
	leastRest = time.Millisecond       // without stepping back, after one that took too long
	mostRest  = time.Second
	restMore  = 8 // times as long, after the next one: what busy processors take is lost for all who wait
)

// gatherer is what an outlet knows of those who gather.
type gatherer struct {
	gathering bool          // somebody stepped back
	frames    int           // that were put
	until     time.Time     // nobody steps back before
	rest      time.Duration // for how long, after the next that takes too long
	crowded   atomic.Bool   // the program's own work keeps the processors busy
}

// put appends a message, for which room was reserved, and has it written. It does not wait for the network. It returns what
// the clock says, as far as that is known without asking it again.
func (o *outlet) put(head, body []byte, now time.Time) (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enqueue(head, body); err != nil || o.writing || o.gathering {
		return now, err
	}
	if now.After(o.until) {
		now = o.stepBack(now)
	}
	o.push()
	return now, nil
}

// hold has what is put, and what write writes, wait for let; false where somebody gathers already, or there is no outlet.
func (o *outlet) hold() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	held := !o.gathering
	o.gathering = true
	return held
}

// let writes what was held.
func (o *outlet) let() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gathering = false
	o.push()
}

// write is put for who has gathered already: so many calls. It writes where somebody else gathers only if much waits.
func (o *outlet) write(head, body []byte, calls int) error {
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
func (o *outlet) enqueue(head, body []byte) error {
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
func (o *outlet) stepBack(since time.Time) time.Time {
	before := o.frames
	o.gathering = true
	o.mu.Unlock()
	runtime.Gosched()
	now := time.Now()
	o.mu.Lock()
	o.gathering = false
	o.judge(now, now.Sub(since), tooLong, o.frames-before)
	return now
}

// judge decides whether to step back again. Where the program's own work keeps the processors busy, who steps back is only
// resumed after it, and all that was gathered waits so long. That is not told from a moment that the system took away, so the
// rest is short at first and grows.
func (g *gatherer) judge(now time.Time, took, most time.Duration, got int) {
	switch {
	case took > most && time.Duration(got)*worth < took:
		g.rest = min(max(restMore*g.rest, leastRest), mostRest)
		g.until = now.Add(g.rest)
	default:
		g.rest /= 2
	}
	if is := g.rest >= leastRest; g.crowded.Load() != is {
		g.crowded.Store(is)
	}
}

// push writes what was gathered (lock held, and not while it writes).
func (o *outlet) push() {
	for len(o.buf) > 0 && !o.writing && o.err == nil {
		out := o.buf
		o.buf, o.spare, o.writing = o.spare[:0], nil, true // it is in use now, so nobody may find it there
		o.mu.Unlock()
		n, err := o.attempt(out)
		o.mu.Lock()
		o.writing = false
		o.held -= n
		o.drained.Broadcast()
		o.release(n)
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
