package bus_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// dialled connects a bus over loopback.
func dialled(t *testing.T, s *embedded.Server) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(s.URL(), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// Requests go out by themselves only where what is written is the protocol, over a socket.
func TestWhoPutsRequests(t *testing.T) {
	s := bustest.Server(t)
	assert.True(t, dialled(t, s).Puts())
	inside, err := bus.Connect("", quiet(), bus.WithNATS(nats.InProcessServer(s)))
	assert.NoError(t, err)
	assert.True(t, !inside.Puts(), "in process")
	assert.NoError(t, inside.Close())
	adopted, err := bus.New(foreign(t, s), quiet())
	assert.NoError(t, err)
	assert.True(t, !adopted.Puts(), "a connection of somebody else's")
	assert.NoError(t, adopted.Close())

	b := dialled(t, s)
	assert.NoError(t, b.Conn().ForceReconnect())
	assert.Eventually(t, func() bool { return b.Conn().Stats().Reconnects == 1 && b.Puts() }, "of the next connection, too")
}

// What the user of the connection sent before a call goes out before it.
func TestCallsStayBehindTheConnection(t *testing.T) {
	s := bustest.Server(t)
	service, caller := dialled(t, s), dialled(t, s)
	nc := caller.Conn()
	serve(t, service, "svc.news", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		return r, service.Conn().Publish("news", r)
	}))
	call := echoer(caller, "svc.news")
	for range 500 {
		sub, err := nc.SubscribeSync("news")
		assert.NoError(t, err)
		_, err = call(t.Context(), []byte("x"))
		assert.NoError(t, err)
		_, err = sub.NextMsg(soon)
		assert.NoError(t, err)
		assert.NoError(t, sub.Unsubscribe())
	}
	assert.NoError(t, nc.LastError())
}
