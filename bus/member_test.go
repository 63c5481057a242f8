package bus_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// gatekeeper makes connections to a server in this process, and breaks them. While it is shut, who wants one waits.
type gatekeeper struct {
	server *embedded.Server
	shut   sync.RWMutex
	mu     sync.Mutex
	latest net.Conn
}

// InProcessConn implements nats.InProcessConnProvider.
func (k *gatekeeper) InProcessConn() (net.Conn, error) {
	k.shut.RLock()
	defer k.shut.RUnlock()
	c, err := k.server.InProcessConn()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.latest = c
	return c, err
}

func (k *gatekeeper) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.latest.Close()
}

// Row 8: the connection breaks while a subscription is drained, and comes back before what arrived was looked at. The broker is
// not left with a member that answers nothing; where the bus can't see to that, it says so.
func TestRow08NoGhostInTheQueueGroup(t *testing.T) {
	for name, connect := range map[string]func(k *gatekeeper) (*bus.Bus, *nats.Conn, error){
		"owned": func(k *gatekeeper) (*bus.Bus, *nats.Conn, error) {
			b, err := bus.Connect("nats://unused", quiet(), bus.WithNATS(nats.InProcessServer(k), nats.CustomReconnectDelay(func(int) time.Duration { return 0 })))
			if err != nil {
				return nil, nil, err
			}
			nc := b.Conn()
			return b, nc, nil
		},
		"adopted": func(k *gatekeeper) (*bus.Bus, *nats.Conn, error) {
			nc, err := nats.Connect("nats://unused", nats.InProcessServer(k), nats.ReconnectBufSize(-1), nats.CustomReconnectDelay(func(int) time.Duration { return 0 }))
			if err != nil {
				return nil, nil, err
			}
			b, err := bus.New(nc, quiet())
			return b, nc, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			service, caller, s := free(t)
			k := &gatekeeper{server: s}
			b, nc, err := connect(k)
			assert.NoError(t, err)
			t.Cleanup(nc.Close)
			t.Cleanup(func() { _ = b.Close() })
			g := newGate(t)
			serve(t, b, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
				g.pass()
				return r, nil
			}, endpoint.Concurrency(1), endpoint.Backlog(1, time.Minute)))
			flood(t, caller.Conn(), g)
			serve(t, service, "svc.work", rawEndpoint(echo))
			assert.NoError(t, service.Conn().Flush())

			k.shut.Lock() // who refuses requests waits for the connection, and others wait behind
			stopped := make(chan error, 1)
			go func() { stopped <- b.Stop(t.Context(), "svc.work") }()
			assert.Eventually(t, func() bool { return b.Leaving() == 1 })
			k.cut()
			assert.Eventually(t, func() bool { return b.Leaving() == 1 })
			k.shut.Unlock()
			g.open()
			err = <-stopped
			if name == "adopted" && err != nil { // it is none where all was looked at before the connection was back, as one processor may
				failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
				assert.NoError(t, nc.ForceReconnect())
			} else {
				assert.NoError(t, err)
			}
			assert.Eventually(t, nc.IsConnected)
			assert.NoError(t, nc.Flush())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			for _, err := range each(40, func(int) error {
				_, err := echoer(caller, "svc.work")(ctx, nil)
				return err
			}) {
				assert.NoError(t, err, "nobody else is there")
			}
		})
	}
}

// flood lets one call in, and sends so many more that they are refused for some time.
func flood(t *testing.T, nc *nats.Conn, g *gate) {
	t.Helper()
	reply := nats.NewInbox()
	assert.NoError(t, nc.PublishRequest("svc.work", reply, nil))
	g.await(t, 1)
	for range 50_000 {
		assert.NoError(t, nc.PublishRequest("svc.work", reply, nil))
	}
	assert.NoError(t, nc.Flush())
}
