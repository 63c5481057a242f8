package bus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// What probes find out depends on how far the broker's word goes: in a cluster, across gateways, leaf nodes and accounts.

// mortal is an instance that can be killed: the bus is on a connection that is not its own.
func mortal(t testing.TB, s *embedded.Server, opts ...bus.Option) (b *bus.Bus, die func()) {
	t.Helper()
	nc := foreign(t, s)
	b, err := bus.New(nc, append([]bus.Option{quiet()}, opts...)...)
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b, nc.Close
}

// deaths kills instances that have acked calls, one after the other, and says how long it took until the callers knew. They die
// at the given age at least.
func deaths(t *testing.T, caller *bus.Bus, at *embedded.Server, age time.Duration) {
	t.Helper()
	var all []func() time.Duration
	for i := range 5 {
		service, die := mortal(t, at)
		subject := fmt.Sprint("svc.slow", i)
		g, _ := until(t, service, subject)
		call := echoer(caller, subject)
		assert.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, _ = call(ctx, nil)
			return len(g.entered) > 0
		}, "the caller's server knows of it")
		all = append(all, func() time.Duration {
			done := deadline(t, call, time.Minute)
			assert.Eventually(t, func() bool { return caller.Watched() == 1 && caller.Living() == 1 })
			died := time.Now()
			die()
			failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
			return time.Since(died)
		})
	}
	start, worst := time.Now(), time.Duration(0)
	assert.Eventually(t, func() bool { return time.Since(start) > age })
	for _, death := range all {
		worst = max(worst, death())
	}
	t.Logf("a dead instance was noticed within %v", worst)
	assert.True(t, worst < soon, worst.String())
}

func TestRow06AtAnotherNode(t *testing.T) {
	c, err := embedded.StartCluster(3)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	deaths(t, connect(t, c.Server(0), quiet()), c.Server(2), 0)
}

// Across gateways there is one thing to know: what an instance hands out in the first two seconds after it subscribed goes to its
// server without a look at who is there, for up to four seconds. For so long nobody says that it is dead.
func TestRow06InAnotherCluster(t *testing.T) {
	west, east := superCluster(t, "")
	deaths(t, connect(t, west.Server(0), quiet()), east.Server(1), 2100*time.Millisecond)
}

func TestRow06BehindALeafNode(t *testing.T) {
	hub, edge := leaf(t, bus.Permissions(bus.ClientRole, "svc"))
	deaths(t, connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.cli")), hub, 0)
}

// Behind a leaf node that may not publish to instances nobody hears a probe, and the broker says so. They live all the same.
func TestLivesBehindARestrictedLeafNode(t *testing.T) {
	hub, edge := leaf(t, `permissions: { publish: ["svc.>"], subscribe: ["_RI.cli.>"] }`)
	caller := connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.cli"))
	service, _ := mortal(t, hub)
	g, _ := until(t, service, "svc.slow")
	assert.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, _ = echoer(caller, "svc.slow")(ctx, nil)
		return len(g.entered) > 0
	})
	done := deadline(t, echoer(caller, "svc.slow"), time.Minute)
	assert.Eventually(t, func() bool { return caller.Watched() == 1 && caller.Asked() >= 4 })
	_, err := caller.Conn().Request("_RPC.svc."+service.ID()+".c.x", nil, 10*time.Second)
	assert.ErrorIs(t, err, nats.ErrNoResponders)
	assert.Equal(t, caller.Living(), 0)
	assert.Equal(t, len(done), 0, "the call waits")
	g.open()
	assert.NoError(t, <-done)
}

// Across accounts replies go through an import, where nobody can be asked: there are no acks, and who dies is silent.
func TestNoProbesAcrossAccounts(t *testing.T) {
	for _, kind := range []string{"singleton", "stream"} {
		for name, opts := range map[string][]bus.Option{"token": nil, "headers": {bus.WithHeaderMetadata()}} {
			t.Run(kind+" "+name, func(t *testing.T) {
				s := accounts(t, exported(t), "response_type: "+kind, "share: true")
				nc := foreign(t, s, nats.UserInfo("peer", "peer"))
				service, err := bus.New(nc, quiet())
				assert.NoError(t, err)
				t.Cleanup(func() { _ = service.Close() })
				g, _ := until(t, service, "svc.slow")
				caller := as(t, s, "client", "_RI.cli", append(opts, content(t))...)
				call := echoer(caller, "svc.slow")
				lives := deadline(t, call, time.Minute)
				g.await(t, 1)
				time.AfterFunc(200*time.Millisecond, func() { g.opened <- struct{}{} })
				assert.NoError(t, <-lives)
				last := deadline(t, call, 500*time.Millisecond)
				g.await(t, 1)
				assert.Equal(t, service.Acked()+caller.Watched(), 0)
				nc.Close()
				failed(t, <-last, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
			})
		}
	}
}

// A peer in another account acks even so. Where one message answers a request, it was that; else the reply follows. What it hands
// out is a subject below _R_ when it arrives: nobody is asked there.
func TestAcksThroughAnImport(t *testing.T) {
	for kind, replies := range map[string]bool{"singleton": false, "stream": true} {
		t.Run(kind, func(t *testing.T) {
			s := accounts(t, exported(t), "response_type: "+kind, "share: true")
			nc := foreign(t, s, nats.UserInfo("peer", "peer"))
			var asked atomic.Int32
			respond(t, nc, "_RPC.>", func(*nats.Msg) { asked.Add(1) })
			requests := make(chan *nats.Msg, 1)
			respond(t, nc, "svc.slow", func(m *nats.Msg) {
				_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: below("x"), Header: nats.Header(wire.WriteAck("i1"))})
				requests <- m
			})
			caller := as(t, s, "client", "_RI.cli")
			done := started(echoer(caller, "svc.slow"), time.Second)
			m := <-requests
			time.AfterFunc(500*time.Millisecond, func() { _ = m.Respond(nil) })
			e := <-done
			assert.Equal(t, e.instance, "i1", "the ack is there")
			if replies {
				assert.NoError(t, e.err)
			} else {
				failed(t, e.err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
			}
			assert.Equal(t, int(asked.Load())+caller.Asked(), 0)
		})
	}
}
