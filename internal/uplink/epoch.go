package uplink

import "github.com/nats-io/nats.go"

// Epoch is the number of the connection that is there, or of the last one. Each has one, from 1 on.
func (u *Uplink) Epoch() uint64 {
	if o := u.latest.Load(); o != nil {
		return o.epoch
	}
	return u.made.Load()
}

// Lost reports whether a connection is known to be over.
func (u *Uplink) Lost(epoch uint64) bool { return u.lost.Load() >= epoch }

// Became is told what nats.go says of its connection: first that there is one, then what becomes of it. Of those that were dialled
// here, an uplink itself knows when they are lost, and does so before.
func (u *Uplink) Became(nc *nats.Conn, s nats.Status) {
	o := u.latest.Load()
	switch s { //nolint:exhaustive // others say nothing of an epoch
	case nats.CONNECTED:
		u.made.CompareAndSwap(0, 1) // none was dialled where a server is in this process, or the connection is adopted
		if o != nil && nc.IsConnected() {
			o.prepare()
		}
	case nats.RECONNECTING:
		if o == nil {
			u.sever(u.made.Add(1)-1, false)
		}
	case nats.CLOSED:
		u.sever(u.Epoch(), true)
	}
}

// sever notes that a connection is lost, and has its calls told.
func (u *Uplink) sever(epoch uint64, closed bool) {
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
