package bus

import (
	"time"

	"github.com/nats-io/nats.go"
)

// A bus has one connection after the other. What is known by way of one says nothing about the next, so each has a number,
// its epoch:
//
//	made ──► there ──► lost     calls that were sent end: connection_lost; those whose instance is known go on
//	           ▲         │
//	           └─────────┘      the next one: instances are asked for their calls again, replies that were kept are sent
//
// Of a connection that an uplink made, its outlet knows first. Of others nats.go tells, a little later.

// landTime bounds how long what a lost connection has brought may take to reach its calls.
const landTime = 100 * time.Millisecond

// connected reports whether there is a connection, without waiting for one that is being made.
func (b *Bus) connected() bool {
	if o := b.up.Latest(); o != nil {
		return o.Up() && b.refused.Load() == nil
	}
	return b.nc.IsConnected()
}

// unreachable is why nothing can be sent just now, nil where it may well be.
func (b *Bus) unreachable() error {
	if o := b.up.Latest(); o != nil && !o.Up() {
		return nats.ErrDisconnected
	}
	return nil
}

// crowded reports whether the program's own work keeps the processors busy, as far as those who send have noticed.
func (b *Bus) crowded() bool { return b.up.Latest().Crowded() }

// follow goes through the life of the connection until events has an end, or the connection. It is who sends what was kept.
func (b *Bus) follow(events <-chan nats.Status) {
	for {
		select {
		case s, ok := <-events:
			if !ok || !b.became(s) {
				return
			}
		case <-b.kept.wake:
			b.kept.send(b)
		}
	}
}

// became notes what became of the connection; false when that was its end.
func (b *Bus) became(s nats.Status) bool {
	b.up.Became(b.nc, s)
	switch s { //nolint:exhaustive // others are not asked for, or are nobody else's business
	case nats.CONNECTED:
		b.maxPayload.Store(b.nc.MaxPayload()) // each server has its own; and this waits until the connection may be used
		b.acked.renew()
		b.kept.send(b)
	case nats.CLOSED:
		b.dropKept()
		return false
	}
	return true
}

// severed ends the calls that were sent by way of a connection, or one before it, once what it brought has reached them.
func (b *Bus) severed(epoch uint64, closed bool) {
	if closed && b.nc.IsClosed() { // the mux ends with it
		return
	}
	for end := time.Now().Add(landTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if n, _, err := b.mux.sub.Pending(); n == 0 || err != nil {
			break
		}
	}
	b.mux.sever(epoch)
	b.streams.sever(epoch)
}

// sever tells the calls of lost connections, but for those whose instance may be asked, and whose reply is here. A stream has lost what came meanwhile.
func (m *replyMux) sever(epoch uint64) {
	mute := m.acked.silenced()
	for _, s := range *m.table.Load() {
		s.mu.Lock()
		over := s.secret != 0 && s.sends.epoch != 0 && s.sends.epoch <= epoch && !s.left && !s.due
		if h := s.ack; over && (s.sink != nil || h == nil || h.shared || h.Call == "" || mute[h.Service]) {
			s.give(connectionLost)
		}
		s.mu.Unlock()
	}
}
