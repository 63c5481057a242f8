package bus

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// Slots returns how many reply slots are taken, not counting those of batch frames.
func (b *Bus) Slots() int {
	n := b.mux.inUse()
	for _, s := range *b.mux.table.Load() {
		s.mu.Lock()
		if s.batch != nil {
			n--
		}
		s.mu.Unlock()
	}
	return n
}

// Timed returns how many reply slots have a timer that is to go off.
func (b *Bus) Timed() int {
	n := 0
	for _, s := range *b.mux.table.Load() {
		if s.fires.Load() != 0 {
			n++
		}
	}
	return n
}

// FrameSlots returns how many reply slots batch frames have.
func (b *Bus) FrameSlots() int { return b.mux.inUse() - b.Slots() }

// Table returns how many reply slots there are.
func (b *Bus) Table() int { return len(*b.mux.table.Load()) }

// Acked returns how many calls to us were acked and are not answered yet.
func (b *Bus) Acked() int {
	b.acked.mu.Lock()
	defer b.acked.mu.Unlock()
	return len(b.acked.calls)
}

// Watched returns how many calls of ours are probed for.
func (b *Bus) Watched() int {
	p := b.mux.acked
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, q := range p.known {
		n += len(q.calls)
	}
	return n
}

// Tombs returns how many slots wait for an ack whose callers left.
func (b *Bus) Tombs() int {
	b.mux.tombs.mu.Lock()
	defer b.mux.tombs.mu.Unlock()
	return len(b.mux.tombs.slots)
}

// Canceled returns how many of the calls that Acked counts were canceled.
func (b *Bus) Canceled() int {
	b.acked.mu.Lock()
	defer b.acked.mu.Unlock()
	n := 0
	for _, k := range b.acked.calls {
		k.mu.Lock()
		if k.canceled {
			n++
		}
		k.mu.Unlock()
	}
	return n
}

// Crowd has the program's own work keep the processors busy, for as long as the connection lasts.
func (b *Bus) Crowd() { b.up.Latest().Crowd(time.Now().Add(time.Hour)) }

// Lead has somebody lead those who are to be woken, who never does.
func (b *Bus) Lead() { b.mux.relay.add(due{}) }

// Relaying returns how many wait to be woken by another caller, or are about to wake one.
func (b *Bus) Relaying() int {
	r := &b.mux.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.queue) - r.head
	if r.leads && n == 0 {
		n = 1
	}
	return n
}

// Waiting returns how many bytes wait to be written.
func (b *Bus) Waiting() int { return b.up.Latest().Waiting() }

// MaxWaiting is from how many on calls are refused, as Connect says.
const MaxWaiting = 4 << 20

// Living returns how many instances that have calls of ours answered a probe, and Asked how many probes went out, or are about to,
// to the one that was asked most.
func (b *Bus) Living() (n int) {
	b.mux.acked.mu.Lock()
	defer b.mux.acked.mu.Unlock()
	for _, q := range b.mux.acked.known {
		if q.lived > 0 && len(q.calls) > 0 {
			n++
		}
	}
	return n
}

func (b *Bus) Asked() (n int) {
	b.mux.acked.mu.Lock()
	defer b.mux.acked.mu.Unlock()
	for _, q := range b.mux.acked.known {
		n = max(n, q.serial)
	}
	return n
}

// Muted reports whether probes are off for a service.
func (b *Bus) Muted() bool {
	b.mux.acked.mu.Lock()
	defer b.mux.acked.mu.Unlock()
	return len(b.mux.acked.mute) > 0
}

// farFuture is a deadline that no test lives to see.
var farFuture = time.Now().Add(time.Hour)

// Kept returns how many replies wait for a connection, or for their callers to ask again, and Unsent how many of the first kind.
func (b *Bus) Kept() int {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	n := 0
	for _, a := range b.kept.replies {
		if a != nil {
			n++
		}
	}
	return n
}

// Leaving returns how many operations were stopped and are not known to be at their end.
func (b *Bus) Leaving() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.leaving)
}

func (b *Bus) Unsent() int {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	return b.kept.unsent
}

// Forget drops the replies that are kept.
func (b *Bus) Forget() {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	for i, a := range b.kept.replies {
		if a != nil {
			b.kept.forget(i)
		}
	}
}

// Heard has the bus hear a complaint of the broker's.
func (b *Bus) Heard(err error) { b.heard(err) }

// Late has the bus keep a reply, as if its connection had been away when it was to be sent.
func (b *Bus) Late(subject string, body []byte) error {
	return b.keep(nats.ErrDisconnected, recipient{subject: subject, since: time.Now(), waits: time.Minute}, nil, body)
}

// Puts reports whether requests are put into the connection without the client library.
func (b *Bus) Puts() bool {
	o := b.up.Latest()
	return o != nil && o.Ready()
}

// Move has the bus do what it does when its server is about to end.
func (b *Bus) Move() { b.move() }

// Streams returns how many streams to us are open.
func (b *Bus) Streams() int {
	b.streams.mu.RLock()
	defer b.streams.mu.RUnlock()
	return len(b.streams.open)
}

// Eager has one bus send every call in a batch frame, the lonely ones too, without asking who takes them.
func Eager() Option {
	return func(c *config) error {
		c.eager, c.frameless = true, false
		return nil
	}
}

// Framing takes batch frames, and sends them, whatever the environment says.
func Framing() Option {
	return func(c *config) error {
		c.eager, c.frameless = false, false
		return nil
	}
}

// Quiet logs to l. With frames always, every call goes in a batch frame, the lonely ones too, without asking who takes them.
func Quiet(l *slog.Logger, frames string) Option {
	return func(c *config) error {
		c.eager, c.frameless = frames == "always", c.frameless || frames == "off"
		return WithLogger(l)(c)
	}
}

// Grown returns by how many bytes the windows of streams to a bus are larger than at first.
func (b *Bus) Grown() int { return int(b.grown.Load()) }

// Free returns how much room there is to put messages together.
func (b *Bus) Free() int64 {
	b.depot.mu.Lock()
	defer b.depot.mu.Unlock()
	b.replies.mu.Lock()
	defer b.replies.mu.Unlock()
	return b.depot.free + b.replies.free - depotShare*int64(b.maxMessage)
}
