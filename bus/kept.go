package bus

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/wire"
)

// maxKept bounds the replies that wait for a connection, in bytes.
const maxKept = 4 << 20

// kept are the replies that were finished while there was no connection: each waits for the next one, until its caller does
// not wait any more. A caller may have lost its own connection, too, by the same event, and come back later than we do. So
// the reply to a call that was acked stays until then, and when the caller asks for the call it is sent again.
type kept struct {
	mu      sync.Mutex
	replies map[*answer]bool
	acked   map[uint64]*answer // of them, by the call
	size    int
	timer   *time.Timer
	ended   bool
	unsent  int
	idle    chan struct{} // closed when nothing is unsent; nil while nobody waits for that
}

// answer is a reply that is kept.
type answer struct {
	msg   *nats.Msg
	call  uint64 // in the ledger, 0 if it was not acked
	until time.Time
	sent  bool
}

func (a *answer) size() int { return a.msg.Size() + 1 }

// keep takes a reply that could not be sent; false if there is no room for it, or no reason to wait.
func (k *kept) keep(a *answer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended || k.size+a.size() > maxKept || !time.Now().Before(a.until) {
		return false
	}
	if k.replies == nil {
		k.replies, k.acked = map[*answer]bool{}, map[uint64]*answer{}
	}
	k.replies[a] = true
	if a.call != 0 {
		k.acked[a.call] = a
	}
	k.size += a.size()
	k.unsent++
	if len(k.replies) == 1 {
		k.timer = reset(k.timer, keepEvery, k.decay)
	}
	return true
}

// keepEvery is the pace at which replies are forgotten.
const keepEvery = 100 * time.Millisecond

// decay forgets what nobody waits for any more.
func (k *kept) decay() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for a := range k.replies {
		if !now.Before(a.until) {
			k.forget(a)
		}
	}
	if len(k.replies) > 0 && !k.ended {
		k.timer.Reset(keepEvery)
	}
}

// forget drops a reply (lock held).
func (k *kept) forget(a *answer) {
	if !k.replies[a] {
		return
	}
	delete(k.replies, a)
	delete(k.acked, a.call)
	k.size -= a.size()
	k.settle(a)
}

// settle says that a reply does not wait for a connection any more (lock held).
func (k *kept) settle(a *answer) {
	if a.sent {
		return
	}
	a.sent = true
	if k.unsent--; k.unsent == 0 && k.idle != nil {
		close(k.idle)
		k.idle = nil
	}
}

// send sends what waits for a connection. What fails again goes on waiting.
func (k *kept) send(b *Bus) {
	k.mu.Lock()
	var due []*answer
	for a := range k.replies {
		if !a.sent && time.Now().Before(a.until) {
			due = append(due, a)
		}
	}
	k.mu.Unlock()
	for _, a := range due {
		if err := b.nc.PublishMsg(a.msg); err != nil && b.interrupted(err) {
			return
		}
		k.mu.Lock()
		if k.settle(a); a.call == 0 {
			k.forget(a)
		}
		k.mu.Unlock()
	}
}

// again sends the reply to a call that its caller asks for; false if it is not kept.
func (k *kept) again(b *Bus, call string) bool {
	id, _ := wire.ParseCall(call)
	k.mu.Lock()
	a := k.acked[id]
	k.mu.Unlock()
	return a != nil && b.nc.PublishMsg(a.msg) == nil
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
	for a := range k.replies {
		k.forget(a)
	}
	if k.timer != nil {
		k.timer.Stop()
	}
	return lost
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

// keep returns err, or nil where the reply that could not be sent is kept. It copies what it keeps.
func (b *Bus) keep(err error, to recipient, h wire.Headers, body []byte) error {
	if err == nil || !b.interrupted(err) {
		return err
	}
	a := &answer{msg: &nats.Msg{Subject: to.subject, Data: bytes.Clone(body)}, call: to.call, until: to.until}
	if h != nil {
		a.msg.Header = nats.Header{}
	}
	for name, values := range h {
		a.msg.Header[name] = slices.Clone(values)
	}
	if !b.kept.keep(a) {
		return err
	}
	b.report(slog.LevelDebug, "reply kept until the connection is back", slog.Any("error", err))
	return nil
}
