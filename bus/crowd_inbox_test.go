package bus

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// What waits for the consumer is bounded with its headers. An ack is no reply: there may be as many beside them.
func TestCrowdInbox(t *testing.T) {
	crowded := func(ms ...*nats.Msg) (kept int, full bool) {
		k := &crowd{news: make(chan struct{}, 1)}
		for range crowdReplies {
			for _, m := range ms {
				k.heard(m)
			}
		}
		for {
			_, ok, over := k.next()
			if !ok {
				assert.Equal(t, k.acks+k.size, 0)
				return kept, over
			}
			kept++
		}
	}
	ack := &nats.Msg{Reply: "_RPC.svc.i.c.x", Header: nats.Header{wire.Ack: {"i"}}}
	reply := &nats.Msg{Data: []byte("{}")}
	kept, full := crowded(ack, reply)
	assert.Equal(t, kept, 2*crowdReplies)
	assert.True(t, !full)
	kept, full = crowded(ack, ack)
	assert.Equal(t, kept, crowdReplies)
	assert.True(t, !full)
	kept, full = crowded(&nats.Msg{Data: []byte("{}"), Header: nats.Header{"X": {strings.Repeat("x", 1<<20)}}})
	assert.True(t, kept < 8 && full)
}
