package bus

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/uplink"
	"postbus.example/internal/wire"
)

// Calls to one subject that are about to be sent at the same moment share a message, a batch frame, where all who serve the
// subject take such (batch_terms.go). Nothing waits for that: who comes first steps back once, so that all who can add their
// call, and sends what is there.
//
//	add ──► entries ──► somebody gathers: it takes this along
//	           └──► nobody does: step back ──► one: sent as if there were no frames
//	                                   └─────► more: frame ──► each call waits in its own slot
//
// To its caller a call in a frame is a call like any other. What is known to have come to nothing with its frame is sent once
// more, alone.

// longest is how long to gather a frame: what the system takes away at times must not send its calls alone.
const longest = 4 * time.Millisecond

// batcher is where the calls of one caller meet.
type batcher struct {
	bus         *Bus
	subject, to string // the endpoint's, and where its frames go
	terms       terms
	calls       atomic.Int32 // under way that nobody has agreed on frames for

	mu        sync.Mutex
	gather    uplink.Gatherer
	gathering bool // somebody stepped back
	added     int  // calls, up to now
	next      outbound
	many      int // calls that the last frame had
	bytes     int // that it had
	spare     []byte
}

// outbound is what the next message will have.
type outbound struct {
	data  []byte
	batch *batch // nil: no call yet
	place *uplink.Outlet
	room  int    // that was reserved there
	epoch uint64 // of the connection, the oldest of the calls'
}

// member is a call in a frame.
type member struct {
	slot   *slot
	secret uint64
}

// batch is a frame. Once it is sent it has a slot of its own, until its last call has left.
type batch struct {
	by      *batcher
	slot    *slot
	members []member // only appended to until it is sent
	left    atomic.Int32
}

// add puts a call into the next frame, and sees to it that it is sent; false if it is to go alone.
func (b *batcher) add(place *uplink.Outlet, room int, r *sending) bool {
	token := r.token()[len(b.bus.mux.prefix):]
	b.mu.Lock()
	f := &b.next
	if f.batch != nil && f.place != place { // the connection is another
		b.mu.Unlock()
		return false
	}
	if f.batch == nil {
		b.begin(place, r.epoch)
	}
	f.data = wire.AppendEntry(f.data, token, r.body)
	f.batch.join(r.slot, r.secret)
	f.room += room
	b.added++
	f.epoch = min(f.epoch, r.epoch)
	full := len(f.batch.members) == wire.MaxEntries || len(f.data)+wire.EntrySize(wire.MaxToken, wire.MaxEntryBody) > b.most()
	if b.gathering && !full {
		b.mu.Unlock()
		return true
	}
	if !full && b.gather.Pays(r.now) && b.stepBack(place, r) {
		r.draft.held = place
	}
	out := b.take()
	alone := out.batch != nil && len(out.batch.members) == 1 && out.batch.members[0].slot == r.slot && !b.bus.eager
	if alone {
		b.spare = out.data[:0]
	}
	b.mu.Unlock()
	if !alone {
		b.send(out, r.now)
	}
	return !alone
}

// begin makes room for a frame like the last one (lock held).
func (b *batcher) begin(place *uplink.Outlet, epoch uint64) {
	f := &b.next
	f.place, f.epoch = place, epoch
	f.batch = &batch{by: b, members: make([]member, 0, max(b.many, 1))}
	f.batch.left.Store(1) // who sends it
	if cap(f.data) == 0 {
		f.data = make([]byte, 0, b.bytes+b.bytes/8)
	}
}

// sendsTo notes that a call goes alone.
func (s *slot) sendsTo(subject string) {
	s.mu.Lock()
	s.sends.to, s.in = subject, nil
	s.mu.Unlock()
}

// unwelcome tells calls that were refused for want of room, or because an instance ends, where another may have room: all of
// a frame goes to one.
func (b *batcher) unwelcome(e *endpoint.Error) bool {
	switch e.Reason() {
	case reasonBacklogFull, reasonBacklogWait, reasonDraining:
		return e.Outcome() == endpoint.NotExecuted && e.Remote() && b.terms.many()
	}
	return false
}

// most is how many bytes a frame may have.
func (b *batcher) most() int { return min(wire.MaxBatch, int(b.bus.maxPayload.Load())) }

// stepBack lets others add their calls (lock held). Frames that become full meanwhile wait in the outlet, so that one system call
// writes them all: held says that the caller is to let it write. Who would go alone, which costs as much as a whole frame, steps back
// once more, and needs not do so at the outlet.
func (b *batcher) stepBack(place *uplink.Outlet, r *sending) (held bool) {
	before := b.added
	b.gathering = true
	b.mu.Unlock()
	held = place.Hold()
	runtime.Gosched()
	b.mu.Lock()
	if held && b.next.batch != nil && len(b.next.batch.members) == 1 {
		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
	}
	b.gathering = false
	now := time.Now()
	if b.gather.Judge(now, now.Sub(r.now), longest, b.added-before) {
		place.Crowd(time.Time{})
	}
	r.now = now
	return held
}

// take takes what is there (lock held).
func (b *batcher) take() outbound {
	out := b.next
	b.next = outbound{data: b.spare[:0]}
	b.spare = nil
	if out.batch != nil {
		b.many, b.bytes = len(out.batch.members), len(out.data)
	}
	return out
}

// send sends a frame. What can't be sent its calls try alone, and learn why.
func (b *batcher) send(f outbound, now time.Time) {
	bt, m := f.batch, b.bus.mux
	if bt == nil {
		return // somebody else took them all along
	}
	s, secret := m.open(request{}, bt.found)
	if s == nil {
		f.place.Release(f.room)
		return // the mux has ended, and told everybody
	}
	bt.lead(s, request{b.to, now, f.epoch})
	if err := b.publish(&f, bt, secret); err != nil {
		s.sendsTo("")
		bt.unsent(err)
	}
	bt.leave(m)
	b.mu.Lock()
	if cap(f.data) <= 2*wire.MaxBatch {
		b.spare = f.data[:0]
	}
	b.mu.Unlock()
}

// publish writes the message of a frame, unless all its calls have ended meanwhile.
func (b *batcher) publish(f *outbound, bt *batch, secret uint64) (err error) {
	d := b.bus.mux.drafts.Get().(*draft)
	defer b.bus.mux.drafts.Put(d)
	line := append(append(append(d.line[:0], "PUB "...), b.to...), ' ')
	from := len(line)
	line = append(wire.AppendID(append(line, b.bus.mux.prefix...), bt.slot.index, secret), "~a1"...)
	end := len(line)
	line = append(strconv.AppendInt(append(line, ' '), int64(len(f.data)), 10), "\r\n"...)
	d.line = line
	if b.bus.up.Lost(f.epoch) || bt.left.Load() == 1 {
		f.place.Release(f.room)
		return nats.ErrDisconnected
	}
	if b.bus.puts(f.place, len(f.data)) {
		size := len(line) + len(f.data) + len("\r\n")
		f.place.Release(f.room - size)
		if err = f.place.PutFrame(line, f.data, len(bt.members)); err != nil {
			f.place.Release(size)
		}
		return err
	}
	defer f.place.Release(f.room)
	return b.bus.nc.PublishRequest(b.to, string(line[from:end]), f.data)
}

// lead takes a slot for the frame. It is found by those who look for what was sent only now that the frame knows it.
func (bt *batch) lead(s *slot, r request) {
	bt.slot = s
	s.mu.Lock()
	s.batch, s.sends = bt, r
	s.mu.Unlock()
}

// unsent tells the calls of a frame that was not sent, or not to its end.
func (bt *batch) unsent(err error) {
	if bt.by.bus.sendError(err, 0).Outcome() == endpoint.MaybeExecuted {
		bt.tell(connectionLost)
		return
	}
	bt.alone()
}
