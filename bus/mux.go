package bus

import (
	crand "crypto/rand"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/wire"
)

// replyMux gives each call in flight a reply subject of its own below one plain subscription. A plain one, since the
// broker answers "no responders" only to a requester that has a plain subscription for the reply.
//
// A slot is reused, its 64 random bits are not: a late, double or forged reply finds no one.
type replyMux struct {
	prefix string // with the dot
	made   time.Time
	sub    *nats.Subscription

	table atomic.Pointer[[]*slot] // read by the subscription's callback without a lock

	mu     sync.Mutex
	free   []*slot
	random *rand.ChaCha8
	ended  bool // nobody receives replies any more

	tombs tombs
	acked *peers // takes acks; nil: they are replies like any other

	relay   relay
	crowded func() bool // who is woken waits behind the program's own work

	late atomic.Uint64 // replies that nobody waited for

	drafts sync.Pool // of *draft
}

// slot is where one call waits. What every call needs stands first, side by side.
type slot struct {
	index int
	ch    chan *nats.Msg // nil in it: no reply will come, the mux has ended
	fires atomic.Int64   // when the timer does, in nanoseconds since the mux was made; 0: it is not set
	leads atomic.Bool    // who reads what is in ch wakes the next one, see relay

	mu      sync.Mutex // guards what follows, and changes of fires
	secret  uint64     // of the call that waits, 0 if none
	in      *batch     // that its call went in
	ack     *holder    // who has the call, once it said so
	given   bool       // something was, to the call that waits
	due     bool       // something will be, see relay
	whole   bool       // of a call that has a sink: acks are taken as of others
	left    bool       // its caller did, see tombs
	many    bool       // whoever listens may have the call, see crowd
	detours int32      // messages that are still on their way by way of nats.go, see shortcut.go
	sends   request
	sink    func(*nats.Msg)
	part    nats.Msg // an answer without headers that has no memory of its own
	timer   *time.Timer

	until  time.Time     // when nobody cares any more
	tomb   int           // where it is among the tombs; their lock guards it
	batch  *batch        // whose slot it is
	stream *clientStream // whose slot it is
}

// request is what a slot knows of the request that its call is about to send. The zero value is none's.
type request struct {
	to    string
	sent  time.Time // about when
	epoch uint64    // of the connection that it goes out by
}

// replyRoom is how many messages a slot holds: the reply, the acknowledgements of streams that overlap, and its timer's, for which
// there is room beside the others as well.
const replyRoom = 5

// The table has at least leastSlots, and from manySlots on it grows more slowly.
const (
	leastSlots = 64
	manySlots  = 1 << 12
)

func newReplyMux(nc *nats.Conn, prefix string, acked *peers, crowded func() bool) (*replyMux, error) {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails, says its documentation
	m := &replyMux{prefix: prefix + ".", made: time.Now(), acked: acked, crowded: crowded, random: rand.NewChaCha8(seed)}
	m.drafts.New = func() any { return new(draft) }
	m.table.Store(new([]*slot))
	sub, err := nc.Subscribe(m.prefix+"*", m.deliver)
	if err != nil {
		return nil, err
	}
	_ = sub.SetPendingLimits(-1, -1)               // deliver never blocks
	sub.SetClosedHandler(func(string) { m.end() }) // also when the connection is closed for good
	m.sub = sub
	return m, nil
}

// open takes a slot for a call; none is left when the mux has ended. Every message for it goes to sink if there is one,
// which must not block, else to ch.
func (m *replyMux) open(r request, sink func(*nats.Msg)) (*slot, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, 0
	}
	if len(m.free) == 0 {
		m.grow()
	}
	s := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	secret := max(m.random.Uint64(), 1)
	s.mu.Lock() // within the other, so that end misses no one
	s.secret, s.sends, s.sink, s.given, s.due, s.detours = secret, r, sink, false, false, 0
	s.mu.Unlock()
	return s, secret
}

// end tells everybody who waits that no reply will come any more. It may be called more than once.
func (m *replyMux) end() {
	m.mu.Lock()
	m.ended = true
	table := *m.table.Load()
	for _, s := range m.free {
		s.rest()
	}
	m.mu.Unlock()
	m.raze()
	for d, ok := m.relay.next(); ok; d, ok = m.relay.next() {
		m.resume(d)
	}
	for _, s := range table {
		s.mu.Lock()
		if s.secret != 0 {
			s.give(nil)
		}
		s.mu.Unlock()
	}
}

// rest stops the timer of a slot that nobody will take any more. It would go off at the deadline of some call, and until then
// keep the whole table.
func (s *slot) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.fires.Store(0)
	}
}

// give passes a message to whoever waits (lock held); false if there is no room for it.
func (s *slot) give(msg *nats.Msg) bool {
	if s.sink != nil {
		s.sink(msg)
		return true
	}
	if len(s.ch) >= replyRoom {
		return false
	}
	s.given = true
	s.ch <- msg // has room: who sends has the lock
	return true
}

// grow doubles the table, since copying it for each new slot would be quadratic; a large one grows by a quarter, since nobody
// else gets a slot meanwhile, and what is not used is never given back.
func (m *replyMux) grow() {
	old := *m.table.Load()
	more := max(leastSlots, len(old))
	if len(old) >= manySlots {
		more = len(old) / 4
	}
	table := make([]*slot, len(old)+more)
	copy(table, old)
	slots := make([]slot, more)
	m.free = slices.Grow(m.free, more)
	for i := range slots {
		s := &slots[i]
		s.index, s.ch = len(old)+i, make(chan *nats.Msg, replyRoom+1)
		table[s.index] = s
		m.free = append(m.free, s)
	}
	m.table.Store(&table)
}

// close gives the slot back; what comes for it from now on is late.
func (m *replyMux) close(s *slot) {
	s.mu.Lock()
	h, in := s.ack, s.in
	s.secret, s.sink, s.whole, s.ack, s.sends, s.batch, s.in, s.many, s.stream = 0, nil, false, nil, request{}, nil, nil, false, nil
	s.part.Data = nil
	for len(s.ch) > 0 {
		if msg := <-s.ch; !verdict(msg) {
			m.late.Add(1)
		}
	}
	s.mu.Unlock()
	m.relayed(s)
	if h != nil {
		m.acked.forget(h)
	}
	m.mu.Lock()
	m.free = append(m.free, s)
	if m.ended {
		s.rest()
	}
	m.mu.Unlock()
	if in != nil {
		in.leave(m)
	}
}

// deliver is the subscription's callback.
func (m *replyMux) deliver(msg *nats.Msg) {
	token := strings.TrimPrefix(msg.Subject, m.prefix)
	m.hand(nil, token, msg)
	m.rejoins(token)
}

// answer gives a call of a frame its part of an answer.
func (m *replyMux) answer(of *batch, token string, body []byte) {
	if s, secret := m.find(token); s != nil {
		s.mu.Lock()
		ok := s.secret == secret && s.in == of && s.bare()
		if ok {
			m.fill(s, body)
		}
		s.mu.Unlock()
		if ok {
			return
		}
	}
	m.hand(of, token, &nats.Msg{Data: body})
}

// find returns the slot that a token names, and the random bits of the call that it is for; nil if there is none.
func (m *replyMux) find(token string) (*slot, uint64) {
	index, secret, ok := wire.ParseID(token)
	if table := *m.table.Load(); ok && index < len(table) && secret != 0 {
		return table[index], secret
	}
	return nil, 0
}

// bare reports whether a reply without headers is all that the call of a slot waits for, and its memory is free (lock held).
func (s *slot) bare() bool { return s.sink == nil && !s.left && s.part.Data == nil }

// fill gives such a call its reply, which needs no memory but that of the body (lock held).
func (m *replyMux) fill(s *slot, body []byte) {
	s.part.Data = body
	m.wake(s, &s.part)
}

// hand gives a message to the call that waits under a token. What was said of a frame is for its calls only.
func (m *replyMux) hand(of *batch, token string, msg *nats.Msg) {
	s, secret := m.find(token)
	if s == nil {
		m.late.Add(1)
		return
	}
	s.mu.Lock()
	switch {
	case s.secret != secret || of != nil && s.in != of:
		s.mu.Unlock()
		m.stray(msg)
	case s.batch != nil:
		bt := s.batch
		s.sends = request{} // the broker let it pass
		s.mu.Unlock()
		m.unpack(bt, msg)
	case m.acked != nil && (s.sink == nil || s.whole) && len(msg.Header) > 0 && len(msg.Data) == 0 && m.acked.take(s, msg):
		left := s.left
		h := s.ack
		s.mu.Unlock()
		m.noted(s, secret, h, left)
	case s.left:
		stream, many := s.sink != nil, s.many
		s.mu.Unlock()
		if many && m.acked.callOff(msg) {
			return
		}
		m.late.Add(1)
		if !many {
			m.missed(s, secret, stream, msg)
		}
	default:
		m.wake(s, msg)
		s.mu.Unlock()
	}
}

// stray counts a reply that finds nobody. The answer to a probe that was given up is none.
func (m *replyMux) stray(msg *nats.Msg) {
	switch wire.ReadControl(wire.Headers(msg.Header)) {
	case wire.VerbBeat, wire.VerbUnknown:
	default:
		m.late.Add(1)
	}
}

// noted goes on with an ack that a slot took.
func (m *replyMux) noted(s *slot, secret uint64, h *holder, left bool) {
	switch {
	case h == nil: // it was none that may be believed
	case !left:
		m.acked.watch(s, secret, h)
	case m.exhume(s, secret):
		m.acked.cancel(h)
	}
}

// missed is for a message whose caller left before. Where it says who has a stream, or a large reply, that is
// canceled there.
func (m *replyMux) missed(s *slot, secret uint64, stream bool, msg *nats.Msg) {
	var h *holder
	if m.acked != nil && (stream || wire.Announces(wire.Headers(msg.Header))) {
		h = m.acked.opened(msg)
	}
	if m.exhume(s, secret) && h != nil {
		m.acked.cancel(h)
	}
}

// tell passes on what was found out about a call, if the slot is still its.
func (s *slot) tell(secret uint64, verdict *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret == secret && !s.left && !s.due {
		s.give(verdict)
		s.sends.to = ""
	}
}

// holder returns who has the call of a slot that waits, nil if nobody said so.
func (s *slot) holder() *holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ack
}

// inUse returns how many calls wait.
func (m *replyMux) inUse() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(*m.table.Load()) - len(m.free)
}
