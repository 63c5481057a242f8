package bus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func testMux() *replyMux {
	m := &replyMux{prefix: "_I.x.", made: time.Now(), crowded: func() bool { return false }, random: rand.NewChaCha8([32]byte{1})}
	m.table.Store(new([]*slot))
	return m
}

func (m *replyMux) token(s *slot, secret uint64) string {
	return m.prefix + string(wire.AppendID(nil, s.index, secret))
}

func same[T comparable](rt *rapid.T, got, want T) {
	rt.Helper()
	if got != want {
		rt.Fatalf("got %v, want %v", got, want)
	}
}

// TestMuxProperty opens and closes calls in any order and delivers true, late, double, guessed and garbled replies: each
// call gets what is sent to it, in order and as far as there is room, and nothing else; all else is counted as late.
func TestMuxProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type call struct {
			slot  *slot
			token string
			want  []string
		}
		m := testMux()
		var open []*call
		var closed, all []string
		late, serial := uint64(0), 0
		deliver := func(token string) string {
			serial++
			body := fmt.Sprint(serial)
			if of, ours := strings.CutPrefix(token, m.prefix); serial%2 == 0 || !ours || !m.take([]byte(of), []byte(body)) {
				m.deliver(&nats.Msg{Subject: token, Data: []byte(body)})
			}
			return body
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": func(*rapid.T) {
				s, secret := m.open(request{}, nil)
				c := &call{slot: s, token: m.token(s, secret)}
				same(rt, slices.Contains(all, c.token), false) // a token is never used twice
				open, all = append(open, c), append(all, c.token)
			},
			"close": func(rt *rapid.T) {
				if len(open) == 0 {
					rt.Skip()
				}
				i := rapid.IntRange(0, len(open)-1).Draw(rt, "call")
				late += uint64(len(open[i].want))
				m.close(open[i].slot)
				closed = append(closed, open[i].token)
				open = slices.Delete(open, i, i+1)
			},
			"reply": func(rt *rapid.T) {
				if len(open) == 0 {
					rt.Skip()
				}
				c := open[rapid.IntRange(0, len(open)-1).Draw(rt, "call")]
				body := deliver(c.token + rapid.SampledFrom([]string{"", "~d5S", "~d5S~s0"}).Draw(rt, "pairs"))
				if len(c.want) < replyRoom {
					c.want = append(c.want, body)
				} else {
					late++
				}
			},
			"late": func(rt *rapid.T) {
				if len(closed) == 0 {
					rt.Skip()
				}
				deliver(rapid.SampledFrom(closed).Draw(rt, "token"))
				late++
			},
			"guess": func(rt *rapid.T) {
				deliver(m.prefix + string(wire.AppendID(nil, rapid.IntRange(0, 200).Draw(rt, "slot"), rapid.Uint64().Draw(rt, "secret"))))
				late++
			},
			"garbled": func(rt *rapid.T) {
				deliver(rapid.SampledFrom([]string{
					m.prefix, "", "_I.x", m.prefix + "x", m.prefix + strings.Repeat("z", 15),
					m.prefix + "000" + strings.Repeat("~", 12), m.prefix + strings.Repeat("9", 200),
				}).Draw(rt, "token"))
				late++
			},
			"take": func(rt *rapid.T) {
				for _, c := range open {
					for _, want := range c.want {
						got := <-c.slot.ch
						same(rt, string(got.Data), want)
					}
					c.want = nil
					same(rt, len(c.slot.ch), 0)
				}
			},
			"": func(rt *rapid.T) {
				same(rt, m.inUse(), len(open))
				same(rt, m.late.Load(), late)
			},
		})
	})
}

// A slot's timer is heard however full the slot is, by nobody between calls, and is no reply to whoever asks for one.
func TestSlotRings(t *testing.T) {
	m := testMux()
	m.acked = newPeers(&Bus{config: &config{}})
	defer m.end()
	s, secret := m.open(request{}, nil)
	for range replyRoom + 3 {
		m.deliver(&nats.Msg{Subject: m.token(s, secret)})
	}
	s.ring()
	s.ring()
	heard := 0
	for len(s.ch) > 0 {
		if <-s.ch == rang {
			heard++
		}
	}
	assert.Equal(t, heard, 1)
	m.close(s)
	s.ring()
	again, _ := m.open(request{to: "svc.x", sent: time.Now()}, nil)
	assert.True(t, again == s && len(s.ch) == 0, "between two calls")
	s.ring()
	calls := m.sentTo(map[string]int{"svc.x": 1}, time.Now())
	assert.Equal(t, len(calls["svc.x"]), 1, "no reply came")
	m.leave(s, farFuture)
	assert.Equal(t, len(m.tombs.slots), 1, "so an ack may come")
	assert.Equal(t, m.late.Load(), uint64(3))
	_, _ = m.open(request{}, func(msg *nats.Msg) { assert.True(t, msg == nil, "a timer is nothing for a sink") })
	for _, s := range *m.table.Load() {
		s.ring()
	}
}

func TestMuxSink(t *testing.T) {
	m := testMux()
	var got []string
	s, secret := m.open(request{}, func(msg *nats.Msg) { got = append(got, string(msg.Data)) })
	token := m.token(s, secret)
	for i := range 10 {
		m.deliver(&nats.Msg{Subject: token, Data: fmt.Append(nil, i)})
	}
	assert.Equal(t, len(got), 10)
	m.close(s)
	m.deliver(&nats.Msg{Subject: token})
	assert.Equal(t, len(got), 10)
	assert.Equal(t, m.late.Load(), uint64(1))
}

// Many calls at once, each with a liar that answers to the calls before it.
func TestMuxAtOnce(t *testing.T) {
	m := testMux()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			old := m.prefix + "000000000000001"
			for n := range 500 {
				s, secret := m.open(request{}, nil)
				token, want := m.token(s, secret), fmt.Sprint(i, n)
				m.deliver(&nats.Msg{Subject: old, Data: []byte("old")})
				m.deliver(&nats.Msg{Subject: token, Data: []byte(want)})
				if got := string((<-s.ch).Data); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				m.close(s)
				old = token
			}
		})
	}
	wg.Wait()
	assert.Equal(t, m.inUse(), 0)
	assert.Equal(t, m.late.Load(), uint64(16*500))
	assert.True(t, len(*m.table.Load()) <= 64, "slots are reused")
}

// A call that has its reply, or its verdict, is none that a complaint may be about, also while it is about to end: else a
// complaint would be spent on it, and the call that it is about would not hear of it.
func TestMuxWhoHasItsReplyIsNoSuspect(t *testing.T) {
	m := testMux()
	suspects := func() int { return len(m.sentTo(map[string]int{"svc.a": 1}, time.Now())["svc.a"]) }
	for name, answer := range map[string]func(s *slot, secret uint64){
		"reply":   func(s *slot, secret uint64) { m.deliver(&nats.Msg{Subject: m.token(s, secret)}) },
		"verdict": func(s *slot, secret uint64) { s.tell(secret, denied) },
	} {
		s, secret := m.open(request{to: "svc.a", sent: time.Now()}, nil)
		assert.Equal(t, suspects(), 1, name)
		answer(s, secret)
		<-s.ch
		assert.Equal(t, suspects(), 0, name)
		m.close(s)
	}
	s, secret := m.open(request{to: "svc.a", sent: time.Now()}, func(*nats.Msg) {})
	assert.Equal(t, suspects(), 1)
	s.tell(secret, denied)
	assert.Equal(t, suspects(), 0, "a stream's")
	m.close(s)
}

// TestMuxStray has messages for a call that has ended: a reply is late, the answer to a probe is not.
func TestMuxStray(t *testing.T) {
	m := testMux()
	s, secret := m.open(request{}, nil)
	token := m.token(s, secret)
	m.close(s)
	for _, verb := range []string{wire.VerbBeat, wire.VerbUnknown} {
		m.deliver(&nats.Msg{Subject: token, Header: nats.Header(wire.WriteControl(verb))})
	}
	assert.Equal(t, m.late.Load(), uint64(0))
	m.deliver(&nats.Msg{Subject: token})
	m.deliver(&nats.Msg{Subject: token, Header: nats.Header(wire.WriteControl("other"))})
	assert.Equal(t, m.late.Load(), uint64(2))
}
