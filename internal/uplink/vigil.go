package uplink

import (
	"time"

	"github.com/nats-io/nats.go"
)

// nats.go pings the broker, and gives a connection up that owes it answers. But where a process has a hundred thousand calls to
// begin, the answers may be there for seconds before its reader has its turn. A peer that is alive must not be given up because
// we are busy, so the outlet keeps the watch itself: silence is when nothing was read and nothing is there to be read either.
//
// What can't be asked what is there, as a connection of a user's dialer, is silent when nothing was read. Where much is read and
// the answers are not among it, nats.go gives up as before, but later.

// indulgence is how much more patient with answers nats.go is made.
const indulgence = 4

// silenceOf returns how long a connection may be silent, which is no longer than nats.go's patience; 0 means for good.
func silenceOf(o *nats.Options) time.Duration {
	if o.PingInterval <= 0 {
		return 0
	}
	return o.PingInterval*time.Duration(max(o.MaxPingsOut, 1)+1) - o.PingInterval/4
}

// keepVigil begins to watch a connection whose handshake is over.
func (o *Outlet) keepVigil() {
	if o.silence > 0 {
		o.heard.Store(o.age())
		time.AfterFunc(o.silence, o.vigil)
	}
}

// vigil looks whether the peer is silent, until the connection is at its end.
func (o *Outlet) vigil() {
	if !o.up.Load() {
		return
	}
	rest := o.silence - time.Duration(o.age()-o.heard.Load())
	if rest <= 0 && (o.unread == nil || !o.unread()) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil && !o.closed {
			o.giveUp(nats.ErrStaleConnection)
		}
		return
	}
	if rest <= 0 {
		rest = o.silence / 8 // until somebody reads
	}
	time.AfterFunc(rest, o.vigil)
}
