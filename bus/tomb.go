package bus

import (
	"slices"
	"sync"
	"time"

	"postbus.example/internal/wire"
)

// The states of a slot. What is not drawn is late, and changes nothing.
//
//	        open            ack                reply, deadline, end of the
//	free ─────────► waits ─────────► acked ─── bus; verdict: instance or ────┐
//	 ▲               │  │             │        reply lost, and see sever     │
//	 │               │  └─────────────┼─────── reply, deadline, end of the ──┤
//	 │               │                │        bus; verdict: connection      │
//	 │               │                │        lost, denied                  │
//	 │    caller gone│                │caller gone: a cancel is sent         │
//	 │               ▼                ▼                                      ▼
//	 │              left ─────────► closed ◄─────────────────────────────────┘
//	 │                 ack: a cancel is sent;    │
//	 │                 reply: late; denied;      │
//	 │                 deadline                  │
//	 └───────────────────────────────────────────┘
//
// Gone is a caller whose context was canceled. One whose deadline passed sends nothing: the service knows the deadline.

const (
	maxTombs  = 1 << 16 // calls whose callers left, and that nobody has acked or answered
	tombEvery = 100 * time.Millisecond
)

// tombs are the slots that were left and wait for an ack, so that their calls can be canceled. Its lock is taken before a
// slot's, and before the mux's.
type tombs struct {
	mu    sync.Mutex
	slots []*slot
	timer *time.Timer
	ended bool
}

// leave gives a slot back whose caller gave up. Where nobody has acked the call, it stays until somebody does, or replies, but
// not beyond the deadline.
func (m *replyMux) leave(s *slot, deadline time.Time) {
	t := &m.tombs
	t.mu.Lock()
	s.mu.Lock()
	h := s.ack
	if h != nil || s.unread() || t.ended || len(t.slots) >= maxTombs || m.acked == nil {
		s.mu.Unlock()
		t.mu.Unlock()
		if h != nil && m.acked != nil {
			m.acked.cancel(h)
		}
		m.close(s)
		return
	}
	s.left, s.until, s.tomb = true, deadline, len(t.slots)
	s.mu.Unlock()
	t.slots = append(t.slots, s)
	if len(t.slots) == 1 {
		t.timer = reset(t.timer, tombEvery, m.decay)
	}
	t.mu.Unlock()
}

// unread reports whether there is something that its call has not read (lock held, by that call).
func (s *slot) unread() bool {
	for len(s.ch) > 0 {
		if msg := <-s.ch; msg != rang {
			s.ch <- msg
			return true
		}
	}
	return false
}

// exhume closes a slot that was left, if it still is that call's; false if not.
func (m *replyMux) exhume(s *slot, secret uint64) bool {
	t := &m.tombs
	t.mu.Lock()
	s.mu.Lock()
	if s.secret != secret || !s.left {
		s.mu.Unlock()
		t.mu.Unlock()
		return false
	}
	s.left = false
	s.mu.Unlock()
	t.remove(s.tomb)
	t.mu.Unlock()
	m.close(s)
	return true
}

// remove takes the slot at i out (lock held).
func (t *tombs) remove(i int) {
	last := len(t.slots) - 1
	t.slots[i] = t.slots[last]
	t.slots[i].tomb = i
	t.slots[last] = nil
	t.slots = t.slots[:last]
}

// decay closes the slots whose deadline passed.
func (m *replyMux) decay() {
	t := &m.tombs
	var old []*slot
	t.mu.Lock()
	now := time.Now()
	for i, s := range slices.Backward(t.slots) { // remove puts one here that was looked at
		s.mu.Lock()
		if over := !now.Before(s.until) || t.ended; over {
			s.left = false
			old = append(old, s)
			t.remove(i)
		}
		s.mu.Unlock()
	}
	if len(t.slots) > 0 {
		t.timer.Reset(tombEvery)
	}
	t.mu.Unlock()
	for _, s := range old {
		m.close(s)
	}
}

// raze closes all of them, for good.
func (m *replyMux) raze() {
	m.tombs.mu.Lock()
	m.tombs.ended = true
	if m.tombs.timer != nil {
		m.tombs.timer.Stop()
		m.tombs.timer = nil
	}
	empty := len(m.tombs.slots) == 0
	m.tombs.mu.Unlock()
	if !empty {
		m.decay()
	}
}

// holder is who has a call, as its ack said.
type holder struct {
	wire.Control
	instance string
	shared   bool // several instances say so
	opened   bool // as what it opened said: an ack has another name for the call
}
