package uplink

import (
	"net"
	"sync"
	"time"
)

// A request that was read wakes its worker, and its reply wakes who writes in nats.go. Where handlers are quick, that costs more
// than they do. So who reads runs them itself, and writes their replies together. It can't be nats.go's goroutine: a handler may
// block, and what it waits for may be something that is to be read. It is one of ours, and another takes its place then:
//
//	network ──► reader ──► Runner: runs what is quick ──► outlet: replies, written when all were run
//	              │ └────► nats.go: what is not for us
//	              └──────► blocked: the next one reads, and this endpoint's handlers are not run here for a while
//
// There is a reader while it has something to run; nats.go reads by itself before, and when that has not been for a while.
type reader struct {
	o    *Outlet
	room []byte
	idle int // how many reads had nothing to run, less what had is worth

	mu      sync.Mutex
	turn    uint64   // of the one that reads; it was another's before
	todo    []Runner // that have something to run
	at      Runner   // whose handlers run
	beats   uint64   // counts what was begun
	seen    uint64   // of it, when the watchdog last looked
	watch   *time.Timer
	watched bool

	news  sync.Cond // for nats.go, and for who reads for it
	left  []byte    // for nats.go
	from  int       // what it has of that already
	err   error     // why there is no more
	over  bool      // nats.go is to read by itself
	ended bool      // nobody reads what is left any more
}

const (
	readRoom = 64 << 10
	mostLeft = 1 << 20      // bytes that wait for nats.go
	mostKept = 4 * readRoom // bytes of memory for it, while nothing waits: a burst must not be paid for ever
	mostIdle = 1000
	worthIt  = 4 // reads with nothing to run, for one with something

	watchEvery = time.Millisecond // whether what runs blocks
)

// lend has a reader run what the sieve has for one, and read from then on.
func (o *Outlet) lend() *reader {
	r := &reader{o: o, room: make([]byte, readRoom)}
	r.news.L = &r.mu
	o.reader.Store(r)
	go r.run(0)
	return r
}

// read is Read of nats.go's goroutine; 0 and no error when it is to read by itself.
func (r *reader) read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.from == len(r.left) && r.err == nil && !r.over {
		r.news.Wait()
	}
	n := copy(p, r.left[r.from:])
	if n == 0 {
		return 0, r.err
	}
	if r.from += n; r.from == len(r.left) {
		r.left, r.from = r.left[:0], 0
		if cap(r.left) > mostKept {
			r.left = nil
		}
	}
	r.news.Broadcast()
	return n, nil
}

// run reads until another one does. A handler that ends its goroutine does not take the reader along.
func (r *reader) run(turn uint64) {
	alive := false
	defer func() {
		if !alive {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.relieve(turn)
		}
	}()
	for r.serve(turn) {
		n, err := r.o.fill(r.room)
		if !r.pass(r.room[:n], err) {
			break
		}
	}
	alive = true
}

// serve runs what was read. It is false when somebody else reads now.
func (r *reader) serve(turn uint64) bool {
	s := &r.o.sieve
	if len(s.ready) == 0 {
		if r.idle++; r.idle >= mostIdle {
			r.retire()
			return false
		}
		return true
	}
	r.idle = max(r.idle-worthIt, 0)
	r.o.lays.Store(true)
	ready := s.ready
	s.ready = s.ready[:0] // before somebody else may read
	d, mine := r.next(turn, ready...)
	for d != nil {
		d.RunInline()
		d, mine = r.next(turn)
	}
	if mine {
		r.o.layOff()
	}
	return mine
}

// next is whose handlers are to be run now, nil when there are none left, or it is not mine to run them any more.
func (r *reader) next(turn uint64, ready ...Runner) (d Runner, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn != turn {
		return nil, false
	}
	r.todo, r.at = append(r.todo, ready...), nil
	last := len(r.todo) - 1
	if last < 0 {
		return nil, true
	}
	r.at, r.todo = r.todo[last], r.todo[:last]
	r.beats++
	if !r.watched {
		r.watched = true
		r.watch = reset(r.watch, watchEvery, r.look)
	}
	return r.at, true
}

// look is the watchdog.
func (r *reader) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := r.at != nil
	if r.watched = busy || r.beats != r.seen; !r.watched {
		return
	}
	if busy && r.beats == r.seen {
		r.at.Distrust()
		r.relieve(r.turn)
	}
	r.seen = r.beats
	r.watch.Reset(watchEvery)
}

// relieve has another one read in the place of the one whose turn it was (lock held).
func (r *reader) relieve(turn uint64) {
	if r.turn != turn {
		return
	}
	if r.at != nil {
		r.todo = append(r.todo, r.at)
	}
	for _, d := range r.todo {
		d.TakeOver()
	}
	r.todo, r.at = nil, nil
	r.o.layOff()
	r.turn++
	go r.run(r.turn)
}

// pass leaves bytes to nats.go, and an error after them. It is false when that was the last.
func (r *reader) pass(p []byte, err error) bool {
	if len(p) == 0 && err == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.left)-r.from > mostLeft && !r.ended {
		r.news.Wait()
	}
	if r.from > 0 && len(r.left)+len(p) > cap(r.left) {
		r.left, r.from = append(r.left[:0], r.left[r.from:]...), 0
	}
	r.left, r.err = append(r.left, p...), err
	r.news.Broadcast()
	return err == nil && !r.ended
}

// retire lets nats.go read by itself.
func (r *reader) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.news.Broadcast()
}

// end is for a connection that was closed: nobody reads what is left.
func (r *reader) end() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended = true; r.err == nil {
		r.err = net.ErrClosed
	}
	r.news.Broadcast()
}
