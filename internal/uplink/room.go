package uplink

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const maxWaiting = 4 << 20 // bytes that wait to be written, see Reserve

// StuckAfter is how long a network takes nothing of what waits until it is given no more. A busy broker takes its time, too.
const StuckAfter = 500 * time.Millisecond

// ErrStuck is what is wrong with a network that takes nothing any more.
var ErrStuck = errors.New("too much waits to be written, and the network takes nothing of it")

// backlog is what waits to be written, whatever layers it went through.
type backlog struct {
	made    time.Time
	waiting atomic.Int64  // bytes in a buffer and in the hands of who writes it, and those that are reserved
	moved   atomic.Int64  // when the network last took something of a buffer, in nanoseconds since made; 0 while nothing waits
	turn    chan struct{} // held by the one of those who wait for room that looks for it
	room    chan struct{} // has an element when there may be some
}

// Waiting is how many bytes wait to be written.
func (o *Outlet) Waiting() int { return int(o.waiting.Load()) }

// stuck reports whether something waits and the network takes nothing of it.
func (o *Outlet) stuck() bool {
	moved := o.moved.Load()
	return moved != 0 && o.age()-moved > int64(StuckAfter)
}

// Reserve takes a place for n bytes that are about to be written, if there is room; Release gives it back. A message of any
// size finds room while less than half is taken.
func (o *Outlet) Reserve(n int) bool {
	size := int64(n)
	if o.waiting.Add(size) <= max(maxWaiting, maxWaiting/2+size) {
		return true
	}
	o.waiting.Add(-size) // not by Release, which would let us try again
	return false
}

// await is Reserve for those who find no room: they wait while the network takes something, one after the other. It fails
// when it takes nothing, when the connection is lost, and when the caller has had enough. Only the one whose turn it is looks
// for room: a hundred thousand who look would leave no time for anything else.
func (o *Outlet) await(n int, deadline time.Time, done <-chan struct{}) error {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-late.C:
		return context.DeadlineExceeded
	case <-done:
		return context.Canceled
	}
	tick := time.NewTicker(StuckAfter / 50)
	defer tick.Stop()
	for {
		switch {
		case o.Reserve(n):
			return nil
		case !o.up.Load():
			return nats.ErrDisconnected
		case o.stuck():
			return ErrStuck
		}
		select {
		case <-o.room:
		case <-tick.C:
		case <-late.C:
			return context.DeadlineExceeded
		case <-done:
			return context.Canceled
		}
	}
}

// Release gives back what Reserve took. A nil outlet has nothing to give.
func (o *Outlet) Release(n int) {
	if o == nil {
		return
	}
	if o.waiting.Add(int64(-n)) < maxWaiting && len(o.turn) > 0 {
		select {
		case o.room <- struct{}{}:
		default:
		}
	}
}
