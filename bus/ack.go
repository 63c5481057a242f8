package bus

import (
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// What is not answered some 10 ms after it arrived is acked, if its caller asked for that: whoever waits learns which
// instance has the call, and a subject to say more about it. One sweep of the dispatcher finds what is due; a call that is
// quick is never looked at.
//
//	in the ring ──► running ──► answered          quick: no ack, no control
//	     │             │            ▲
//	     └── sweep ────┴─► acked ───┘             the ack is out before the answer is
//	                         │ ▲
//	                 cancel: the handler's context ends; or, while it waits, it never runs

const (
	ackAfter = 10 * time.Millisecond // after receipt
	ackPause = 4 * time.Millisecond  // between two sweeps, at least
)

// errGaveUp is the cause of a handler's context whose caller left.
var errGaveUp = endpoint.Canceled.New("the caller gave up")

// control is a call that was looked at by a sweep. Its mu is locked from before anybody can see it until its ack is out:
// who wants to answer the call waits for that.
type control struct {
	arrival

	mu       sync.Mutex
	id       uint64         // in the ledger, 0 if it was not acked
	call     *endpoint.Call // of the handler that runs
	canceled bool
}

// cancel ends the handler's context, or keeps it from being made.
func (k *control) cancel() {
	k.mu.Lock()
	k.canceled = true
	c := k.call
	k.mu.Unlock()
	if c != nil {
		c.Cancel(errGaveUp)
	}
}

// attach says whose context to end; false when the caller has left already.
func (k *control) attach(c *endpoint.Call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.call = c
	return !k.canceled
}

// settled waits until the ack is out and returns the name of the call, 0 if it has none.
func (k *control) settled() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.call = nil // it ends, and with it what it holds
	return k.id
}

// ledger knows the calls that were acked and are not answered yet.
type ledger struct {
	mu     sync.Mutex
	random *rand.ChaCha8
	calls  map[uint64]*control
	off    bool  // the broker denied a reply: see spoilt
	seen   error // of the connection, when we last looked
}

func newLedger() *ledger {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails, says its documentation
	return &ledger{random: rand.NewChaCha8(seed), calls: map[uint64]*control{}}
}

// enter names a call (its own lock held).
func (l *ledger) enter(k *control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k.id == 0 || l.calls[k.id] != nil {
		k.id = l.random.Uint64()
	}
	l.calls[k.id] = k
}

func (l *ledger) find(call string) *control {
	id, ok := wire.ParseCall(call)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[id]
}

func (l *ledger) leave(id uint64) {
	if id == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, id)
}

// spoilt reports whether acks are off: the broker denied a reply that may have been one, or that an ack was in the way of,
// as with allow_responses, which by default lets one message through for each request.
func (l *ledger) spoilt(b *Bus) bool {
	if b.owned { // it is told, see heard
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.off
	}
	last := b.nc.LastError()
	l.mu.Lock()
	if l.off || last == nil || l.seen != nil && errors.Is(last, l.seen) {
		defer l.mu.Unlock()
		return l.off
	}
	l.seen = last
	l.mu.Unlock()
	if subject, ok := deniedPublish(last); !ok || !asksAck(subject) {
		return false
	}
	l.spoil(b, last)
	return true
}

// spoil ends the acks.
func (l *ledger) spoil(b *Bus, cause error) {
	l.mu.Lock()
	was := l.off
	l.off = true
	l.mu.Unlock()
	if !was {
		b.report(slog.LevelWarn, "no acks any more: the broker denies replies; where allow_responses lets it reply, max must be above 1",
			slog.Any("error", cause))
	}
}

// renew has acks again: another connection may have other grants.
func (l *ledger) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off = false
}

// asksAck reports whether a subject is where a caller waits that asks for acks.
func asksAck(subject string) bool {
	var meta wire.Request
	return wire.ParseToken(subject[strings.LastIndexByte(subject, '.')+1:], &meta) == nil && meta.Ack
}

// ack sends the early ack of a call that asked for one (its lock held).
func (op *operation) ack(k *control) {
	b := op.bus
	to := k.sender()
	if to.subject == "" || strings.HasPrefix(to.subject, wire.ImportRoot+".") || b.acked.spoilt(b) {
		return
	}
	var meta wire.Request
	var app endpoint.Header
	if k.read(&wire.Reader{}, &meta, &app) != nil || !meta.Ack || meta.Stream != "" {
		return
	}
	b.acked.enter(k)
	subject := wire.InstanceRoot(b.rpcRoot, op.spec.Service, b.id) + ".c." + string(wire.AppendCall(nil, k.id))
	err := b.nc.PublishMsg(&nats.Msg{Subject: to.subject, Reply: subject, Header: nats.Header(to.named(wire.WriteAck(b.id)))})
	if err != nil { // the caller waits as it would without
		b.acked.leave(k.id)
		k.id = 0
	}
}

// controlled takes a frame about calls of ours. Verbs that are not known are ignored, and so are calls.
func (b *Bus) controlled(call string, m *nats.Msg) {
	if b.streamed(call, m) {
		return
	}
	switch wire.ReadControl(wire.Headers(m.Header)) {
	case wire.VerbCancel:
		for name := range frame(call, m.Data) {
			if k := b.acked.find(name); k != nil {
				k.cancel()
			} else if x := b.streams.find(name); x != nil {
				x.fail(errGaveUp)
			}
		}
	case wire.VerbPing:
		b.pong(call, m)
	}
}

// frame is the calls of a control frame, the one in its subject first.
func frame(call string, body []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		if !yield(call) {
			return
		}
		for name := range wire.Calls(body) {
			if !yield(name) {
				return
			}
		}
	}
}

// pong says which calls are not here.
func (b *Bus) pong(call string, m *nats.Msg) {
	if m.Reply == "" {
		return
	}
	if b.hostileReply(m.Reply) {
		b.malformed.Add(1)
		return
	}
	verb := wire.VerbBeat
	var missing []byte
	for name := range frame(call, m.Data) {
		if x := b.streams.find(name); x != nil {
			x.named()
		} else if b.acked.find(name) == nil && !b.kept.again(b, name) {
			missing = wire.AppendCalls(missing, name)
		}
	}
	if len(m.Data) == 0 && len(missing) > 0 {
		verb, missing = wire.VerbUnknown, nil
	}
	err := b.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(wire.WriteControl(verb)), Data: missing})
	if err != nil {
		b.report(slog.LevelWarn, "probe not answered", slog.Any("error", err))
	}
}
