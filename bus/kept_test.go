package bus_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/internal/assert"
)

// Row 4: the connection came back between the moment when a reply could not be sent and the one when it was kept.
func TestRow04BackAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t)
		peer := n.Dial("peer")
		got := make(chan *nats.Msg, 10)
		respond(t, peer, "inbox.x", func(m *nats.Msg) { got <- m })
		assert.NoError(t, service.Late("inbox.x", []byte("late")))
		synctest.Wait()
		assert.Equal(t, len(got), 1)
		assert.Equal(t, string((<-got).Data), "late")
		assert.Equal(t, service.Unsent(), 0)
	})
}

// Row 4: nobody who has a call's name can have its reply sent as often as he likes: to ask costs a few bytes, a reply may
// have a million.
func TestRow04AskedForAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, _ := far(t)
		peer := n.Dial("peer")
		serve(t, service, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(20 * time.Millisecond)
			return r, nil
		}))
		var acks, replies atomic.Int32
		control := make(chan string, 1)
		const inbox = "inbox.x"
		respond(t, peer, inbox, func(m *nats.Msg) {
			if m.Reply != "" {
				acks.Add(1)
				control <- m.Reply
				return
			}
			replies.Add(1)
		})
		assert.NoError(t, peer.PublishMsg(&nats.Msg{Subject: "svc.work", Reply: inbox, Header: nats.Header{"Rpc-Ack": {"1"}}}))
		time.Sleep(time.Second)
		assert.Equal(t, len(control), 1)
		name := <-control
		assert.Equal(t, replies.Load(), int32(1))
		call := name[strings.LastIndexByte(name, '.')+1:]
		same := strings.TrimSuffix(strings.Repeat(call+"\n", 255), "\n")
		beats := 0
		for range 100 {
			m := &nats.Msg{Subject: name, Header: nats.Header{"Rpc-Ctl": {"ping"}}, Data: []byte(same)}
			beat, err := peer.RequestMsg(m, time.Second)
			assert.NoError(t, err)
			if len(beat.Data) == 0 {
				beats++
			}
		}
		assert.Equal(t, beats, 100) // nothing is missing
		synctest.Wait()
		assert.Equal(t, replies.Load(), int32(2))
		time.Sleep(time.Second)
		_, err := peer.RequestMsg(&nats.Msg{Subject: name, Header: nats.Header{"Rpc-Ctl": {"ping"}}}, time.Second)
		assert.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, replies.Load(), int32(3)) // what was sent again may be missed, too
		assert.Equal(t, acks.Load(), int32(1))
	})
}

// Row 4: a connection that was closed for good brings nothing any more: a drain does not wait for it.
func TestRow04NothingWaitsForAClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		nc, foreigner := n.Dial("service", nats.MaxReconnects(-1), nats.ReconnectBufSize(-1)), n.Dial("peer")
		service, err := bus.New(nc, quiet())
		assert.NoError(t, err)
		serve(t, service, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return r, nil
		}))
		assert.NoError(t, foreigner.PublishRequest("svc.work", "inbox.x", nil))
		time.Sleep(500 * time.Millisecond)
		n.Link("service").Up.Freeze()
		n.Link("service").Cut()
		time.Sleep(time.Second)
		assert.Equal(t, service.Unsent(), 1)
		nc.Close()
		synctest.Wait()
		assert.Equal(t, service.Kept(), 0)
		takes(t, 0, func() { assert.NoError(t, service.Drain(t.Context())) })
	})
}
