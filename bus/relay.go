package bus

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// Where the program's own work keeps the processors busy, see uplink.Gatherer, who is woken waits behind that work: of many callers who
// are woken at once, all but one. So they are woken one after the other. Who was woken wakes the next one before it goes on,
// which then has its turn as soon as this one waits again:
//
//	reply ──► nobody is about to wake others: its caller leads
//	   └────► queue ──► woken by who leads, and leads in turn
//
// Whoever leads says so by relayed or by closing its slot, whatever becomes of its call, so that nobody is forgotten.

// relay is the queue of replies whose callers are woken by other callers.
type relay struct {
	mu    sync.Mutex
	queue []due
	head  int
	leads bool // somebody does
}

// due is a reply that its call does not know of yet.
type due struct {
	slot   *slot
	secret uint64
	msg    *nats.Msg
}

// add queues a reply, if somebody is there to wake its caller. If not, that one leads now.
func (r *relay) add(d due) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leads {
		if r.head > 0 && len(r.queue) == cap(r.queue) { // never empty, it would only grow
			n := copy(r.queue, r.queue[r.head:])
			clear(r.queue[n:])
			r.queue, r.head = r.queue[:n], 0
		}
		r.queue = append(r.queue, d)
		return true
	}
	r.leads = true
	return false
}

// next takes the next reply; where there is none, nobody leads any more.
func (r *relay) next() (due, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head == len(r.queue) {
		r.queue, r.head, r.leads = r.queue[:0], 0, false
		return due{}, false
	}
	d := r.queue[r.head]
	r.queue[r.head] = due{}
	r.head++
	return d, true
}

// wake gives a reply to the call that waits, now or when its turn has come (the slot's lock held).
func (m *replyMux) wake(s *slot, msg *nats.Msg) {
	if s.sink == nil && m.crowded() {
		if m.relay.add(due{s, s.secret, msg}) {
			s.due, s.given = true, true
			return
		}
		s.leads.Store(true)
	}
	if !s.give(msg) {
		m.late.Add(1) // and who has so much to read passes the lead on
	}
}

// relayed is called by who has read something.
func (m *replyMux) relayed(s *slot) {
	if s.leads.Load() && s.leads.Swap(false) {
		m.wakeNext()
	}
}

// wakeNext wakes the next one who still waits.
func (m *replyMux) wakeNext() {
	for {
		d, ok := m.relay.next()
		if !ok || m.resume(d) {
			return
		}
	}
}

// resume gives a reply to its call, which leads from now on; false if it does not wait any more.
func (m *replyMux) resume(d due) bool {
	s := d.slot
	s.mu.Lock()
	switch {
	case s.secret != d.secret:
		s.mu.Unlock()
		m.late.Add(1)
		return false
	case s.left:
		s.mu.Unlock()
		m.late.Add(1)
		m.missed(s, d.secret, false, d.msg)
		return false
	}
	s.due = false
	wakes := s.sink == nil // nobody is woken by what goes on elsewhere meanwhile
	s.leads.Store(wakes)
	if !s.give(d.msg) {
		m.late.Add(1)
	}
	s.mu.Unlock()
	return wakes
}
