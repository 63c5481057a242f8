package bus

import (
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// A peer that died says nothing, but the broker does, where it is asked. A caller asks by probes, as for its other calls. A service
// asks by its beats: each has a Reply, so that the broker says so when nobody listens where it went. That is believed of a caller
// that was heard of, so that what is sent does get there, and when it is said again.

// errCallerGone is the cause of a handler's context whose caller is not there any more.
var errCallerGone = endpoint.Canceled.New("the caller is gone")

// believed is for how long the broker's word waits for the second one. The broker may be far.
const believed = 5 * time.Second

// heard is for whatever comes from the peer, or about the stream (lock held).
func (l *line) heard(now time.Time) {
	l.watch.Heard(now)
	l.proved, l.missed = true, time.Time{}
}

// named is heard for a probe that asks for the stream.
func (x *serverStream) named() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard(time.Now())
}

// nobody takes the broker's word that nobody listens where a frame went (lock held), and returns why the stream can't go on.
func (x *serverStream) nobody(now time.Time) error {
	switch {
	case !x.proved:
	case x.missed.IsZero(), now.Sub(x.missed) >= believed:
		x.missed = now
		time.AfterFunc(probeEvery, x.ask)
	case now.Sub(x.missed) >= probeEvery:
		return errCallerGone
	}
	return nil
}

// ask beats once more, to hear the broker again.
func (x *serverStream) ask() {
	x.mu.Lock()
	doubt := !x.dead() && !x.missed.IsZero()
	to, position, granted := x.to, x.out.Position(), x.in.Granted()
	x.mu.Unlock()
	if doubt {
		x.post(to, x.self, wire.WriteBeat(position, granted))
	}
}

// part ends our streams and tells their services that the caller leaves, as long as they may be told. What these answer comes too late:
// it was not they who ended anything.
func (m *replyMux) part() {
	for _, s := range *m.table.Load() {
		s.mu.Lock()
		h := s.ack
		stream := s.secret != 0 && s.sink != nil && !s.left
		if stream {
			s.give(nil)
		}
		s.mu.Unlock()
		if stream && h != nil {
			m.acked.cancel(h)
		}
	}
}
