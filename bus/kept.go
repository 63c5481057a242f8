package bus

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/wire"
)

const (
	maxKept   = 4 << 20                // bytes of replies that are kept
	keepSent  = 5 * time.Second        // how long after it was sent: a caller that reconnects has asked by then
	keepAgain = 500 * time.Millisecond // between two times that a reply is sent: it may be on its way to who asks meanwhile
	keepEvery = 100 * time.Millisecond // the pace at which replies are forgotten
)

// kept are replies that may have to be sent, or sent again:
//
//   - what was finished while there was no connection waits for the next one;
//   - the reply to a call that was acked is kept for a while, since its caller may have no connection when it is sent. A
//     caller that is back asks for its calls, and is sent what it missed.
//
// Nothing is kept for longer than its caller waits. Where there is no room, those go first that were sent.
type kept struct {
	mu      sync.Mutex
	replies []*answer          // the oldest first; nil where one was forgotten
	acked   map[uint64]*answer // of them, by the call
	size    int
	unsent  int
	waiting int // bytes of the unsent ones
	timer   *time.Timer
	wake    chan struct{} // has an element when there is something to be sent
	idle    chan struct{} // closed when nothing is unsent; nil while nobody waits for that
	ended   bool
}

// answer is a reply that is kept.
type answer struct {
	msg   *nats.Msg
	call  uint64 // in the ledger, 0 if it was not acked
	until time.Time
	sent  bool
	again time.Time // when it may be sent once more
}

// went notes that a reply was sent.
func (a *answer) went(now time.Time) {
	a.again = now.Add(keepAgain)
	if limit := now.Add(keepSent); limit.Before(a.until) {
		a.until = limit
	}
}

func (a *answer) size() int {
	return 128 + len(a.msg.Subject) + len(a.msg.Data) + wire.Size(wire.Headers(a.msg.Header))
}

// keep takes a reply; false if there is no room for it, or no reason.
func (k *kept) keep(a *answer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended || a.size() > maxKept-k.waiting || !time.Now().Before(a.until) {
		return false
	}
	for len(k.replies) > 0 && k.replies[0] == nil {
		k.replies = k.replies[1:]
	}
	for i, old := range k.replies {
		if k.size+a.size() <= maxKept {
			break
		}
		if old != nil && old.sent {
			k.forget(i)
		}
	}
	if len(k.replies) == 0 {
		k.timer = reset(k.timer, keepEvery, k.decay)
	}
	k.replies = append(k.replies, a)
	k.size += a.size()
	if !a.sent {
		k.unsent++
		k.waiting += a.size()
		select {
		case k.wake <- struct{}{}: // the connection may be back already
		default:
		}
	}
	if a.call != 0 {
		if k.acked == nil {
			k.acked = map[uint64]*answer{}
		}
		k.acked[a.call] = a
	}
	return true
}

// forget drops a reply (lock held).
func (k *kept) forget(i int) {
	a := k.replies[i]
	k.replies[i] = nil
	k.size -= a.size()
	delete(k.acked, a.call)
	k.settle(a)
}

// settle says that a reply does not wait for a connection any more (lock held).
func (k *kept) settle(a *answer) {
	if a.sent {
		return
	}
	a.sent = true
	k.waiting -= a.size()
	if k.unsent--; k.unsent == 0 && k.idle != nil {
		close(k.idle)
		k.idle = nil
	}
}

// decay forgets what nobody waits for any more.
func (k *kept) decay() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for i, a := range k.replies {
		if a != nil && (!now.Before(a.until) || a.sent && a.call == 0) {
			k.forget(i)
		}
	}
	k.replies = slices.DeleteFunc(k.replies, func(a *answer) bool { return a == nil })
	if len(k.replies) > 0 && !k.ended {
		k.timer.Reset(keepEvery)
	}
}

// send sends what waits for a connection. What fails again goes on waiting. It is for one goroutine.
func (k *kept) send(b *Bus) {
	k.mu.Lock()
	var due []*answer
	for _, a := range k.replies {
		if a != nil && !a.sent && time.Now().Before(a.until) {
			due = append(due, a)
		}
	}
	k.mu.Unlock()
	if len(due) == 0 || !b.connected() {
		return
	}
	for _, a := range due {
		if err := b.nc.PublishMsg(a.msg); err != nil && b.interrupted(err) {
			return
		}
		k.mu.Lock()
		k.settle(a)
		a.went(time.Now())
		k.mu.Unlock()
	}
}

// again sends the reply to a call that its caller asks for, unless it was sent a moment ago; false if it is not kept. To ask
// costs next to nothing, and a reply may be big.
func (k *kept) again(b *Bus, call string) bool {
	id, _ := wire.ParseCall(call)
	now := time.Now()
	k.mu.Lock()
	a := k.acked[id]
	due := a != nil && a.sent && !now.Before(a.again)
	if due {
		a.again = now.Add(keepAgain)
	}
	k.mu.Unlock()
	if due {
		_ = b.nc.PublishMsg(a.msg) // who misses it asks once more
	}
	return a != nil
}

// refuse forgets a reply that the broker lets nobody have.
func (k *kept) refuse(subject string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, a := range k.replies {
		if a != nil && a.msg.Subject == subject {
			k.forget(i)
		}
	}
}

// settled returns a channel that is closed once nothing waits for a connection.
func (k *kept) settled() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.idle == nil {
		k.idle = make(chan struct{})
	}
	idle := k.idle
	if k.unsent == 0 {
		close(idle)
		k.idle = nil
	}
	return idle
}

// end forgets everything, and returns how many replies were never sent.
func (k *kept) end() (lost int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	lost = k.unsent
	k.ended = true
	for i, a := range k.replies {
		if a != nil {
			k.forget(i)
		}
	}
	k.replies = nil
	if k.timer != nil {
		k.timer.Stop()
	}
	return lost
}

// dropKept ends what is kept, and says how much was never sent.
func (b *Bus) dropKept() {
	if lost := b.kept.end(); lost > 0 {
		b.report(slog.LevelWarn, "replies not sent: no connection came back in time", slog.Int("replies", lost))
	}
}

// interrupted tells a failure to publish that the next connection will mend.
func (b *Bus) interrupted(err error) bool {
	for _, final := range []error{
		nats.ErrMaxPayload, nats.ErrConnectionClosed, nats.ErrInvalidConnection, nats.ErrBadSubject, nats.ErrBadHeaderMsg, nats.ErrHeadersNotSupported,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// keep returns what became of a reply: err, or nil where it could not be sent and is kept. It copies what it keeps.
func (b *Bus) keep(err error, to recipient, h wire.Headers, body []byte) error {
	if err == nil && to.call == 0 || err != nil && !b.interrupted(err) {
		return err
	}
	a := &answer{msg: &nats.Msg{Subject: to.subject, Data: bytes.Clone(body)}, call: to.call, until: to.until(), sent: err == nil}
	if a.sent {
		a.went(time.Now())
	}
	if h != nil {
		a.msg.Header = nats.Header{}
	}
	for name, values := range h {
		values = slices.Clone(values)
		for i, v := range values { // it may be a part of a whole frame
			values[i] = strings.Clone(v)
		}
		a.msg.Header[name] = values
	}
	if !b.kept.keep(a) || err == nil {
		return err
	}
	b.report(slog.LevelDebug, "reply kept until the connection is back", slog.Any("error", err))
	return nil
}
