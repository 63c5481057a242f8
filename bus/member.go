package bus

import (
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// membership is an operation's place in its queue group: its subscriptions.
//
// A subscription that is drained stays until what arrived was delivered. When the connection breaks before that and comes
// back, nats.go subscribes it again, and says nothing to the broker when it then drops it: the broker is left with a ghost,
// a member that gets its share of the requests and answers none. Callbacks that never block keep the moment short in which
// that may happen. It is noticed, and the remedy is another connection.
type membership struct {
	sub    *nats.Subscription
	frames *nats.Subscription // to batch frames; nil where they are not taken
	left   chan struct{}      // closed when the subscriptions delivered their last message
}

// join subscribes the operation (the bus's lock held).
func (op *operation) join() error {
	m := &membership{left: make(chan struct{})}
	var err error
	var open atomic.Int32
	if op.takesFrames() {
		open.Add(1)
		m.frames, err = op.subscribe(wire.BatchSubject(op.subject), op.receiveFrame)
	}
	if err == nil {
		open.Add(1)
		m.sub, err = op.subscribe(op.subject, op.receive)
	}
	if err != nil {
		m.quit()
		return err
	}
	closed := func(string) {
		if open.Add(-1) == 0 {
			close(m.left)
		}
	}
	for _, sub := range m.all() {
		sub.SetClosedHandler(closed)
	}
	op.member.Store(m)
	for _, sub := range m.all() {
		if bounded(sub) != nil {
			return nats.ErrConnectionClosed // the one way to fail
		}
	}
	return nil
}

func (op *operation) subscribe(subject string, receive nats.MsgHandler) (*nats.Subscription, error) {
	if op.spec.Queue == "" {
		return op.bus.nc.Subscribe(subject, receive)
	}
	return op.bus.nc.QueueSubscribe(subject, op.spec.Queue, receive)
}

// all returns the subscriptions that there are.
func (m *membership) all() []*nats.Subscription {
	if m.frames == nil {
		return []*nats.Subscription{m.sub}
	}
	return []*nats.Subscription{m.frames, m.sub}
}

// quit drops what was not delivered yet. It may have left before.
func (m *membership) quit() {
	for _, sub := range m.all() {
		_ = sub.Unsubscribe() // of a nil one, too, no more than an error
	}
}

// dropped returns how many messages the library dropped.
func (m *membership) dropped() (n uint64) {
	for _, sub := range m.all() {
		n += dropped(sub)
	}
	return n
}

// leave begins to leave the queue group, and returns a channel that is closed at the end.
func (op *operation) leave() <-chan struct{} {
	m := op.member.Load()
	for _, sub := range m.all() {
		if !op.bus.connected() || sub.Drain() != nil { // what arrived already is still delivered
			_ = sub.Unsubscribe() // a drain would wait for a broker that is not there
		}
	}
	return m.left
}

// connections counts those that were made, each before it has its subscriptions.
func (b *Bus) connections() uint64 {
	if b.up.Latest() != nil {
		return b.up.Epoch()
	}
	return b.nc.Stats().Reconnects
}

// exorcise gets rid of ghosts, after connections went from one number to another while a drain went on.
func (b *Bus) exorcise(ops []*operation, before uint64) error {
	if len(ops) == 0 || b.connections() == before || !b.connected() { // the next connection knows nothing of them
		return nil
	}
	if !b.owned {
		return endpoint.Unavailable.Errorf("a reconnect came between: the broker may believe that this connection still serves %s; "+
			"its owner should make it anew (ForceReconnect)", ops[0].subject).WithReason(endpoint.ReasonConnectionLost)
	}
	b.report(slog.LevelWarn, "reconnects once more: a reconnect came between a drain, and the broker may believe that it never was",
		slog.String("subject", ops[0].subject))
	_ = b.nc.ForceReconnect() // it fails where the connection is closed
	return nil
}
