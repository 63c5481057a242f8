package bus

import (
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// A control subject below _R_ may be canceled at, alone, and is not probed for: there a dead instance is silent. (The broker
// lets no client hand one out, so no other test can.)
func TestControlBelowAnImport(t *testing.T) {
	p := newPeers(&Bus{config: &config{rpcRoot: "_RPC"}})
	m := testMux()
	m.acked = p
	s, secret := m.open(request{}, nil)
	m.deliver(&nats.Msg{Subject: m.token(s, secret), Reply: "_R_.abc", Header: nats.Header(wire.WriteAck("i1"))})
	h := s.holder()
	assert.True(t, h != nil && h.instance == "i1" && h.Prefix() == "_R_.abc" && h.Call == "", "taken")
	assert.Equal(t, len(p.known), 0)
	assert.Equal(t, len(s.ch), 0, "the call waits")
	m.close(s)
	assert.Equal(t, m.inUse(), 0)
}

// A slot that was left takes an ack, and nothing else, for as long as it is that call's.
func TestLeftSlots(t *testing.T) {
	p := newPeers(&Bus{config: &config{rpcRoot: "_RPC"}})
	p.ended = true // it is the slots that matter
	m := testMux()
	m.acked = p
	defer m.end()
	ack := func(token, call string) {
		m.deliver(&nats.Msg{Subject: token, Reply: "_RPC.svc.i1.c." + call, Header: nats.Header(wire.WriteAck("i1"))})
	}
	for _, then := range []func(token string){
		func(token string) { ack(token, "x") },
		func(token string) { m.deliver(&nats.Msg{Subject: token, Data: []byte("late")}) },
	} {
		s, secret := m.open(request{}, nil)
		other, _ := m.open(request{}, nil)
		token := m.token(s, secret)
		m.leave(s, farFuture)
		assert.Equal(t, m.inUse(), 2)
		ack(token, "x.y") // no control subject
		assert.Equal(t, m.inUse(), 2)
		then(token)
		assert.Equal(t, m.inUse(), 1)
		assert.Equal(t, len(m.tombs.slots), 0)
		late := m.late.Load()
		again, _ := m.open(request{}, nil)
		ack(token, "x")
		assert.Equal(t, m.late.Load(), late+1, "the slot is another's")
		assert.True(t, again.holder() == nil, "and knows nothing of it")
		m.close(again)
		m.close(other)
	}
	assert.Equal(t, p.bus.malformed.Load(), uint64(2))

	// Bounded, and gone with the mux.
	var slots []*slot
	for range maxTombs + 10 {
		s, _ := m.open(request{}, nil)
		slots = append(slots, s)
	}
	for _, s := range slots {
		m.leave(s, farFuture)
	}
	assert.Equal(t, m.inUse(), maxTombs)
	m.end()
	assert.Equal(t, m.inUse(), 0)
}

// A verdict that nobody waits for any more is no late reply.
func TestVerdictsAreNotLate(t *testing.T) {
	m := testMux()
	for _, verdict := range []*nats.Msg{instanceLost, replyLost, denied, maybeDenied, nil} {
		s, secret := m.open(request{}, nil)
		s.tell(secret, verdict)
		assert.Equal(t, len(s.ch), 1)
		m.close(s)
	}
	assert.Equal(t, m.late.Load(), uint64(0))
}
