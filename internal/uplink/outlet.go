package uplink

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxHeld    = 2 * maxWaiting         // bytes that wait before Write does, too
	writeChunk = 64 << 10               // bytes that have the patience of one write
	lingerTime = 500 * time.Millisecond // the patience with one write when the connection is closed
)

// Outlet is a connection whose Write does not wait: what the network does not take at once waits here, and a goroutine,
// which is there only then, writes it. What waits is bounded, since calls reserve their place first (room.go):
//
//	Reserve ──► publish ──► Write ──► network        it takes all
//	   │                      └─► buf ──► drain      it takes less: until buf is empty
//	   └──► room, or the refusal                     too much waits
//
// A network that takes nothing for as long as the patience with one write is given up, as nats.go would do.
type Outlet struct {
	net.Conn
	poster // guarded by mu
	*backlog

	patience time.Duration
	attempt  func([]byte) (int, error) // writes what goes at once; nil where that can't be had
	epoch    uint64
	sever    func(epoch uint64, closed bool) // is told when the connection is lost, or was closed by this end; must not block

	silence time.Duration // after which the peer is dead, see vigil; 0: never
	heard   atomic.Int64  // when something was last read, in nanoseconds since made
	unread  func() bool   // something is there to be read; nil where that can't be known

	up      atomic.Bool // hands were shaken, and it is neither closed nor lost
	word    []byte      // what was read last, and may be the last word
	first   firstLine   // what was read before
	beneath *Outlet     // what writes to the network where TLS is between; nil: this one does

	takes  *atomic.Pointer[Taker] // who takes what it can out of what is read, see sieve
	sieve  sieve                  // of who reads
	reader atomic.Pointer[reader] // that reads for nats.go; nil: it reads by itself
	lays   atomic.Bool            // replies wait for it, see Lay

	plain bool        // what is written is the protocol itself, not covered by others than us; nats.go's lock guards it
	ready atomic.Bool // requests may be put into it, see Put

	mu        sync.Mutex
	drained   sync.Cond // less is held, or nothing ever will be
	buf       []byte
	spare     []byte // the buffer that nobody is using
	gather    Gatherer
	frames    int  // that were put
	gathering bool // somebody stepped back, or holds what is put
	held      int  // bytes in buf and in the hands of who writes
	writing   bool // drain runs, or somebody writes what was gathered
	closed    bool
	err       error // why it was given up
}

func newOutlet(c net.Conn, patience time.Duration) *Outlet {
	o := &Outlet{
		Conn: c, patience: patience, attempt: attempts(c), unread: unreads(c), sever: func(uint64, bool) {},
		backlog: &backlog{made: time.Now(), turn: make(chan struct{}, 1), room: make(chan struct{}, 1)},
	}
	o.drained.L = &o.mu
	return o
}

// Write takes all of p, or none. It waits only where others than calls fill the connection.
func (o *Outlet) Write(p []byte) (int, error) {
	if o.beneath != nil {
		o.beneath.thin()
	}
	o.thin()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.take(p)
}

// thin waits until less is held, or nothing ever will be.
func (o *Outlet) thin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.held >= maxHeld && o.err == nil && !o.closed {
		o.drained.Wait()
	}
}

// take is Write that never waits (lock held).
func (o *Outlet) take(p []byte) (int, error) {
	switch {
	case o.closed:
		return 0, net.ErrClosed
	case o.err != nil:
		return 0, o.err
	}
	if !o.plain && !o.up.Load() && bytes.HasPrefix(p, []byte("CONNECT {")) {
		o.plain = o.attempt != nil
		o.sieve.on = !o.first.more && len(o.word) == 0 // who writes is the reader itself now, and has read one line
	}
	rest := p
	if o.attempt != nil && !o.writing && len(o.buf) == 0 {
		n, err := o.attempt(p)
		if err != nil {
			o.giveUp(err)
			return n, err
		}
		rest = p[n:]
	}
	if len(rest) == 0 {
		return len(p), nil
	}
	o.buf = append(o.buf, rest...)
	o.held += len(rest)
	o.waiting.Add(int64(len(rest)))
	o.linger()
	return len(p), nil
}

// linger has what waits written by drain, if nobody writes already (lock held). TLS takes it at once.
func (o *Outlet) linger() {
	switch {
	case o.writing:
	case o.beneath != nil:
		o.push()
	default:
		o.writing = true
		o.moved.Store(o.age())
		go o.drain()
	}
}

// drain writes what waits, and ends when nothing does. A connection that was closed meanwhile is closed by it.
func (o *Outlet) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > 0 && o.err == nil {
		out := o.buf
		o.buf, o.spare = o.spare[:0], nil
		for chunk := range slices.Chunk(out, writeChunk) {
			o.bound()
			o.mu.Unlock()
			n, err := o.Conn.Write(chunk)
			o.mu.Lock()
			o.written(n)
			if err != nil {
				o.giveUp(err)
				break
			}
		}
		if cap(out) <= 16*writeChunk { // a burst must not be paid for ever
			o.spare = out[:0]
		}
	}
	_ = o.Conn.SetWriteDeadline(time.Time{})
	o.writing = false
	o.moved.Store(0)
	if o.closed {
		_ = o.Conn.Close()
	}
}

// bound sets until when the write that runs, or is about to, may take (lock held).
func (o *Outlet) bound() {
	patience := o.patience
	if o.closed {
		patience = lingerTime
	}
	if patience > 0 {
		_ = o.Conn.SetWriteDeadline(time.Now().Add(patience))
	}
}

// written makes room (lock held).
func (o *Outlet) written(n int) {
	if n > 0 {
		o.moved.Store(o.age())
	}
	o.held -= n
	o.drained.Broadcast()
	o.Release(n)
}

// giveUp loses what waits, and lets the reader know (lock held).
func (o *Outlet) giveUp(err error) {
	if o.err == nil {
		o.err = err
	}
	o.down(false)
	o.waiting.Add(int64(-o.held))
	o.buf, o.held = nil, 0
	o.drained.Broadcast()
	_ = o.Conn.Close()
}

// Read implements net.Conn. Where the writer gave up, its reason is the reader's.
func (o *Outlet) Read(p []byte) (int, error) {
	n, err := o.read(p)
	if err != nil {
		o.down(false)
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case o.closed:
			err = net.ErrClosed
		case o.err != nil:
			err = o.err
		}
	}
	return n, err
}

// read is for nats.go, which gets something or an error.
func (o *Outlet) read(p []byte) (int, error) {
	r := o.reader.Load()
	for {
		if r != nil {
			if n, err := r.read(p); n > 0 || err != nil {
				return n, err
			}
			o.reader.Store(nil)
		}
		n, err := o.fill(p)
		if r = nil; len(o.sieve.ready) > 0 {
			r = o.lend()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// fill is receive without what is taken out of it: nothing, where all was. It is for one who reads.
func (o *Outlet) fill(p []byte) (int, error) {
	s := &o.sieve
	if len(p) < 2*sieved {
		s.on = false
		if n := copy(p, s.kept); n > 0 {
			s.kept = s.kept[n:]
			return n, nil
		}
	}
	kept := copy(p, s.kept)
	s.kept = s.kept[kept:]
	n, err := o.receive(p[kept:])
	if n > 0 {
		o.heard.Store(o.age())
	}
	if n += kept; !o.up.Load() {
		o.first.hear(p[kept:n])
	}
	if err != nil || !s.on || o.takes == nil {
		return n, err
	}
	s.out, s.now, s.kept = nil, time.Time{}, s.kept[:0]
	if t := o.takes.Load(); t != nil {
		s.out = *t
	}
	return s.sift(p[:n]), nil
}

// Close implements net.Conn. What waits is still written, as long as the network takes it; nobody waits for that.
func (o *Outlet) Close() error {
	o.down(true)
	o.reader.Load().end()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.beneath != nil {
		o.push() // who gathered it comes too late
	}
	if o.closed {
		return nil
	}
	o.closed = true
	o.drained.Broadcast()
	if o.err != nil {
		return nil // it is closed already
	}
	if len(o.buf) > 0 {
		o.linger() // who gathered it comes too late
	}
	if !o.writing || o.stuck() {
		return o.Conn.Close()
	}
	o.bound()
	return o.Conn.SetReadDeadline(time.Now()) // the reader is done at once
}

// SetDeadline implements net.Conn. nats.go bounds its handshake with it, and takes the bound away after.
func (o *Outlet) SetDeadline(t time.Time) error {
	err := o.Conn.SetDeadline(t)
	if err == nil && t.IsZero() && !o.up.Swap(true) {
		o.keepVigil()
	}
	return err
}

// SetWriteDeadline does nothing: a Write does not wait for the network, and what does has patience.
func (o *Outlet) SetWriteDeadline(time.Time) error { return nil }

// down says that the connection is of no use any more.
func (o *Outlet) down(closed bool) {
	if o.up.Swap(false) {
		o.sever(o.epoch, closed)
	}
}

// Up reports whether hands were shaken, and the connection is neither closed nor lost.
func (o *Outlet) Up() bool { return o.up.Load() }

func (o *Outlet) age() int64 { return max(int64(time.Since(o.made)), 1) }
