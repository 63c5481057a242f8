package bus

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// A server that is about to end says so (a "lame duck") and some time later closes its connections, whatever is on its way
// in them. The bus goes before, at a moment that costs nobody anything:
//
//	new calls are held ──► those under way are answered, or acked ──► the queue groups are left
//	──► another server: the groups are joined again ──► calls go on
//
// Handlers that run go on, and so do calls that were acked: replies are kept meanwhile, instances are asked afterwards.

const (
	moveSpread = 2 * time.Second // the clients of a server do not go all at once
	moveQuiet  = time.Second     // for the calls under way; those to services that ack nothing may take longer
	moveTime   = 2 * time.Second // for the new connection
)

// hold keeps a call back until the gate opens, or its time is up.
func hold(gate <-chan struct{}, deadline time.Time, done <-chan struct{}) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-gate:
	case <-late.C:
	case <-done:
	}
}

// move goes to another server, if one is known.
func (b *Bus) move() {
	if len(b.nc.Servers()) < 2 || b.moving.Swap(true) {
		return
	}
	defer b.moving.Store(false)
	epoch := b.up.Epoch()
	if b.lingers(rand.N(moveSpread), func() bool { return b.up.Epoch() != epoch || !b.connected() }) {
		return // it has moved
	}
	b.report(slog.LevelInfo, "moves to another server: this one is about to end", slog.String("server", b.nc.ConnectedUrlRedacted()))
	gate := make(chan struct{})
	b.gate.Store(&gate)
	defer close(gate)
	defer b.gate.Store(nil)
	b.lingers(moveQuiet, func() bool { return !b.mux.waits() })

	b.mu.Lock()
	var ops []*operation
	var lefts []<-chan struct{}
	ends := b.state != running // what it has left to do is done sooner than the server ends, and would be lost by the way
	for _, op := range b.served {
		ops = append(ops, op)
	}
	b.mu.Unlock()
	if ends {
		return
	}
	for _, op := range ops {
		lefts = append(lefts, op.leave())
	}
	late := make(chan struct{})
	defer time.AfterFunc(moveQuiet, func() { close(late) }).Stop()
	waitAll(late, lefts)
	_ = b.nc.ForceReconnect() // it fails where the connection is closed
	b.rejoin(ops)
	b.lingers(moveTime, func() bool { return b.up.Epoch() != epoch && b.connected() })
}

// rejoin subscribes operations again that are still served.
func (b *Bus) rejoin(ops []*operation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, op := range ops {
		if b.state != running || b.served[op.subject] != op {
			continue
		}
		if err := op.join(); err != nil {
			b.report(slog.LevelError, "not served any more", slog.String("subject", op.subject), slog.Any("error", err))
		}
	}
}

// lingers waits until a condition holds, at most for so long; true if it does. The end of the bus is the end of it, too.
func (b *Bus) lingers(most time.Duration, until func() bool) bool {
	end := time.NewTimer(most)
	defer end.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !until() {
		select {
		case <-tick.C:
		case <-end.C:
			return until()
		case <-b.drained:
			return false
		}
	}
	return true
}

// waits reports whether there is a call that a change of the connection would end.
func (m *replyMux) waits() bool {
	return slices.ContainsFunc(*m.table.Load(), func(s *slot) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.secret != 0 && s.sends.epoch != 0 && s.ack == nil && !s.left
	})
}
