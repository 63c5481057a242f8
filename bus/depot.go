package bus

import (
	"slices"
	"sync"
	"time"

	"postbus.example/endpoint"
)

const (
	depotShare = 4 // of the largest messages a depot has room for
	depotPause = 100 * time.Millisecond
)

// depot is room for messages that are put together, in bytes. Who finds none waits, one after the other, so that a large one does
// not wait for good while small ones pass.
type depot struct {
	mu    sync.Mutex
	free  int64
	queue []*lodger
}

// lodger waits for room.
type lodger struct {
	size int64
	has  chan struct{} // closed when it has
}

// errFull is for those who waited in vain. It is as if the service had no place for the call.
var errFull = endpoint.ResourceExhausted.New("there is no room to put the message together").WithReason(reasonBacklogWait)

// take waits for room of so many bytes, to be given back. It asks now and then whether to go on waiting, and returns what makes
// it give up.
func (d *depot) take(size int64, done <-chan struct{}, on func() error) error {
	d.mu.Lock()
	if len(d.queue) == 0 && d.free >= size {
		d.free -= size
		d.mu.Unlock()
		return nil
	}
	l := &lodger{size, make(chan struct{})}
	d.queue = append(d.queue, l)
	d.mu.Unlock()
	tick := time.NewTicker(depotPause)
	defer tick.Stop()
	for {
		select {
		case <-l.has:
			return nil
		case <-tick.C:
		case <-done:
		}
		if err := on(); err != nil {
			return d.leave(l, err)
		}
	}
}

// leave gives up; not where there is room meanwhile.
func (d *depot) leave(l *lodger, why error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.queue, l)
	if i < 0 {
		return nil
	}
	d.queue = slices.Delete(d.queue, i, i+1)
	d.serve() // a smaller one may have waited behind it
	return why
}

// give takes room back.
func (d *depot) give(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free += size
	d.serve()
}

// serve lets in who is next (lock held).
func (d *depot) serve() {
	for len(d.queue) > 0 && d.queue[0].size <= d.free {
		d.free -= d.queue[0].size
		close(d.queue[0].has)
		d.queue = slices.Delete(d.queue, 0, 1)
	}
}
