package bus_test

import (
	"testing"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Serve does not wait for a broker that is away, and leaves nothing behind.
func TestServeOnALostConnection(t *testing.T) {
	s := bustest.Server(t)
	b, err := bus.Connect(s.URL(), quiet(), quickly())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.before", endpoint.New(add))
	subscriptions := b.Conn().NumSubscriptions()
	s.Shutdown()
	assert.Eventually(t, func() bool { return !b.Conn().IsConnected() })
	timed(t, soon, func() {
		failed(t, b.Serve("svc.meanwhile", endpoint.New(add)), endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		failed(t, b.Serve("svc.meanwhile", nil), endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
		assert.NoError(t, b.Stop(t.Context(), "svc.before"))
	})
	assert.Equal(t, len(b.Stats()), 1)
	assert.NoError(t, s.Restart())
	assert.Eventually(t, func() bool { return b.Ready(t.Context()) == nil })
	assert.True(t, b.Conn().NumSubscriptions() < subscriptions, "nothing of either is left")
	_, err = adder(b, "svc.meanwhile")(t.Context(), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	serve(t, b, "svc.meanwhile", endpoint.New(add))
}

func TestServeOnAClosedConnection(t *testing.T) {
	s := bustest.Server(t, unheard())
	nc := foreign(t, s)
	b, err := bus.New(nc, quiet())
	assert.NoError(t, err)
	serve(t, b, "svc.add", endpoint.New(add))
	nc.Close()
	timed(t, soon, func() {
		failed(t, b.Serve("svc.other", endpoint.New(add)), endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
		_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
		failed(t, b.Ready(t.Context()), endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		assert.NoError(t, b.Stop(t.Context(), "svc.add"))
		assert.NoError(t, b.Drain(t.Context()))
	})
}
