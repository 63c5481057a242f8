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
	if o := b.up.latest.Load(); o != nil {
		return o.up.Load() && b.refused.Load() == nil
	}
	return b.nc.IsConnected()
}

// epoch is the number of the connection that is there, or of the last one.
func (u *uplink) epoch() uint64 {
	if o := u.latest.Load(); o != nil {
		return o.epoch
	}
	return u.made.Load()
}

// sever notes that a connection is lost, and has its calls told.
func (u *uplink) sever(epoch uint64, closed bool) {
	for {
		lost := u.lost.Load()
		if lost >= epoch {
			return
		}
		if u.lost.CompareAndSwap(lost, epoch) {
			break
		}
	}
	if told := u.severed.Load(); told != nil {
		go (*told)(epoch, closed) // not by who found out, who may hold nats.go's lock
	}
}

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
	switch s { //nolint:exhaustive // others are not asked for
	case nats.RECONNECTING:
		if b.up.latest.Load() == nil {
			b.up.sever(b.up.made.Add(1)-1, false)
		}
	case nats.CONNECTED:
		b.prepare()
		b.maxPayload.Store(b.nc.MaxPayload()) // each server has its own; and this waits until the connection may be used
		b.acked.renew()
		b.kept.send(b)
	case nats.CLOSED:
		b.up.sever(b.up.epoch(), true)
		b.dropKept()
		return false
	}
	return true
}

// prepare lets requests be put into the connection that is there: its handshake is over, and the broker was told of what is
// subscribed. A connection is made under the same lock of nats.go's that its state is changed under.
func (b *Bus) prepare() {
	if o := b.up.latest.Load(); o != nil && b.nc.IsConnected() {
		o.mu.Lock()
		o.ready.Store(o.plain)
		o.mu.Unlock()
	}
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
