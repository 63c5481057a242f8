package bus

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// What the bus itself finds out about a call stands in its slot where a reply would. What came before it counts.
var (
	connectionLost = &nats.Msg{Subject: endpoint.ReasonConnectionLost} // it was sent by way of one which is no more
	instanceLost   = &nats.Msg{Subject: endpoint.ReasonInstanceLost}
	replyLost      = &nats.Msg{Subject: endpoint.ReasonReplyLost}
	denied         = &nats.Msg{Subject: endpoint.ReasonPublishDenied}
	alone          = &nats.Msg{Subject: "alone"}                      // its frame came to nothing, and nobody executed it
	misunderstood  = &nats.Msg{Subject: "misunderstood"}              // its frame was, by whoever answered
	rang           = &nats.Msg{Subject: endpoint.ReasonExpired}       // no verdict: the slot's timer went off
	maybeDenied    = &nats.Msg{Subject: endpoint.ReasonPublishDenied} // this one, or another to the same subject
)

// verdict tells these from what a peer sent. nil says that the bus has come to its end.
func verdict(msg *nats.Msg) bool {
	switch msg {
	case nil, rang, connectionLost, instanceLost, replyLost, denied, maybeDenied, alone, misunderstood:
		return true
	}
	return false
}

// answered takes the answer to a probe, after which older ones say nothing new. A nil message says that the mux has ended.
func (p *peers) answered(q *peer, k *probe, m *nats.Msg) {
	epoch := p.bus.up.Epoch()
	p.mu.Lock()
	defer p.mu.Unlock()
	if m == nil || k.slot == nil {
		return
	}
	p.drop(q, slices.Index(q.open, k)+1)
	defer p.soon(q)
	if k.epoch != epoch { // the connection was another: it says nothing about this one
		return
	}
	var app endpoint.Header
	verb := wire.ReadControl(wire.Headers(m.Header))
	switch {
	case noResponders(wire.ReadReply(wire.Headers(m.Header), m.Data, &app).Err):
		p.nobody(q, epoch)
		return
	case verb == wire.VerbUnknown && len(k.about) == 1:
		q.said(k, k.about)
	case verb == wire.VerbBeat:
		var missing []string
		for call := range wire.Calls(m.Data) {
			missing = append(missing, call)
		}
		q.said(k, missing)
	default:
		p.bus.malformed.Add(1)
		return
	}
	q.lived, q.suspect = epoch, false
}

// soon sees to it that who is in doubt is asked again without delay (lock held).
func (p *peers) soon(q *peer) {
	if !p.ended {
		p.wake(q.asked.Add(q.pace()))
	}
}

// nobody is the broker's word that the instance is not there. It is believed where the instance answered on this connection
// before, and when it comes twice: behind an import or a leafnode it may come while the instance lives. An instance that
// answered on an earlier connection has the time that it needs to come back, too.
func (p *peers) nobody(q *peer, epoch uint64) {
	verdict := instanceLost
	switch {
	case q.lived == 0:
		return
	case q.lived != epoch && q.missed != epoch:
		q.absent, q.missed = time.Now(), epoch
		return
	case q.lived != epoch && time.Since(q.absent) < comeBack:
		return
	case q.lived != epoch:
		verdict = connectionLost
	case !q.suspect:
		q.suspect = true
		return
	}
	for _, w := range q.calls {
		w.slot.tell(w.secret, verdict)
	}
	clear(q.calls)
	clear(q.missing)
	q.streams = 0
	q.suspect, q.lived, q.missed = false, 0, 0
}

// said takes the calls that the instance does not have, of those that it was asked for. Said once, a reply may be on its way;
// said again, to who asked after that, it is not.
func (q *peer) said(k *probe, missing []string) {
	gone := make(map[string]bool, len(missing))
	for _, call := range missing {
		gone[call] = true
	}
	for _, call := range k.about {
		w, ours := q.calls[call]
		since, again := q.missing[call]
		switch {
		case !ours:
		case !gone[call]:
			delete(q.missing, call)
		case !again:
			q.missing[call] = time.Now()
		case !k.asked.Before(since):
			w.slot.tell(w.secret, replyLost)
			q.remove(call)
		}
	}
}
