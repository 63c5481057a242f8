package bus

import (
	"log/slog"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
)

// membership is an operation's place in its queue group: its subscription.
//
// A subscription that is drained stays until what arrived was delivered. When the connection breaks before that and comes
// back, nats.go subscribes it again, and says nothing to the broker when it then drops it: the broker is left with a ghost,
// a member that gets its share of the requests and answers none. Callbacks that never block keep the moment short in which
// that may happen. It is noticed, and the remedy is another connection.
type membership struct {
	sub  *nats.Subscription
	left chan struct{} // closed when the subscription delivered its last message
}

// join subscribes the operation (the bus's lock held).
func (op *operation) join() error {
	m := &membership{left: make(chan struct{})}
	var err error
	if op.spec.Queue == "" {
		m.sub, err = op.bus.nc.Subscribe(op.subject, op.receive)
	} else {
		m.sub, err = op.bus.nc.QueueSubscribe(op.subject, op.spec.Queue, op.receive)
	}
	if err != nil {
		return err
	}
	m.sub.SetClosedHandler(func(string) { close(m.left) })
	op.member.Store(m)
	if bounded(m.sub) != nil {
		return nats.ErrConnectionClosed // the one way to fail
	}
	return nil
}

// leave begins to leave the queue group, and returns a channel that is closed at the end.
func (op *operation) leave() <-chan struct{} {
	m := op.member.Load()
	if !op.bus.connected() || m.sub.Drain() != nil { // what arrived already is still delivered
		_ = m.sub.Unsubscribe() // a drain would wait for a broker that is not there
	}
	return m.left
}

// connections counts those that were made, each before it has its subscriptions.
func (b *Bus) connections() uint64 {
	if b.up.latest.Load() != nil {
		return b.up.made.Load()
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
