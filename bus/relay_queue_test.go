package bus

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// crowdedMux has callers wake each other; the first of n calls was woken, and has not had its turn.
func crowdedMux(n int) (m *replyMux, slots []*slot, secrets []uint64) {
	m = testMux()
	m.crowded = func() bool { return true }
	m.acked = newPeers(&Bus{})
	for range n {
		s, secret := m.open(request{"svc.x", time.Now(), 1}, nil)
		slots, secrets = append(slots, s), append(secrets, secret)
	}
	m.deliver(&nats.Msg{Subject: m.token(slots[0], secrets[0])})
	return m, slots, secrets
}

// A call whose reply is here does not hear first that the connection is lost.
func TestRelayQueue_sever(t *testing.T) {
	m, slots, secrets := crowdedMux(3)
	reply := &nats.Msg{Subject: m.token(slots[1], secrets[1])}
	m.deliver(reply)
	m.sever(1)
	m.relayed(slots[0])
	assert.True(t, <-slots[1].ch == reply, "the reply comes first")
	assert.True(t, <-slots[2].ch == connectionLost, "who has none is told")
}

// What a call takes elsewhere meanwhile is no turn of its own: the next one is woken.
func TestRelayQueue_sink(t *testing.T) {
	m, slots, secrets := crowdedMux(3)
	m.deliver(&nats.Msg{Subject: m.token(slots[1], secrets[1])})
	m.deliver(&nats.Msg{Subject: m.token(slots[2], secrets[2])})
	sunk := 0
	slots[1].mu.Lock()
	slots[1].sink = func(*nats.Msg) { sunk++ }
	slots[1].mu.Unlock()
	m.relayed(slots[0])
	assert.Equal(t, sunk, 1)
	assert.Equal(t, len(slots[2].ch), 1)
}

// A queue that is never empty does not grow for that.
func TestRelayQueue_bounded(t *testing.T) {
	r := relay{leads: true}
	for range 3 {
		assert.True(t, r.add(due{}))
	}
	for range 10_000 {
		assert.True(t, r.add(due{}))
		_, ok := r.next()
		assert.True(t, ok)
	}
	assert.Equal(t, len(r.queue)-r.head, 3)
	assert.True(t, cap(r.queue) <= 16)
}

// What is said of a frame is for its own calls: one that went alone, or in another frame, does not take it for its own.
func TestMuxAnswersOfOthersFrames(t *testing.T) {
	m := testMux()
	s, secret := m.open(request{}, nil)
	token := string(wire.AppendID(nil, s.index, secret))
	mine, other := &batch{}, &batch{}
	m.answer(mine, token, []byte("x")) // it went alone
	mine.join(s, secret)
	m.answer(other, token, []byte("x"))
	m.hand(other, token, &nats.Msg{})
	assert.Equal(t, len(s.ch), 0)
	assert.Equal(t, m.late.Load(), uint64(3))
	m.answer(mine, token, []byte("x"))
	assert.Equal(t, string((<-s.ch).Data), "x")
}
