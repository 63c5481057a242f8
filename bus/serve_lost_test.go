package bus_test

import (
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// While Serve waits for a broker that is away, nothing else waits for Serve; and it leaves nothing behind.
func TestServeOnALostConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: takes the five seconds that Serve gives the broker")
	}
	s := bustest.Server(t)
	b, err := bus.Connect(s.URL(), quiet(), quickly())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.before", endpoint.New(add))
	subscriptions := b.Conn().NumSubscriptions()
	s.Shutdown()
	assert.Eventually(t, func() bool { return !b.Conn().IsConnected() })
	served := make(chan error, 1)
	go func() { served <- b.Serve("svc.meanwhile", endpoint.New(add)) }()
	assert.Eventually(t, func() bool { return len(b.Stats()) == 3 }, "it is on its way")
	timed(t, 4*time.Second, func() {
		b.Use()
		_ = b.Middleware()
		_ = b.Stats()
		assert.NoError(t, b.Stop(t.Context(), "svc.before"))
	})
	failed(t, <-served, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.MaybeExecuted)
	assert.Equal(t, len(b.Stats()), 1)
	assert.NoError(t, s.Restart())
	assert.Eventually(t, func() bool { return b.Ready(t.Context()) == nil })
	assert.True(t, b.Conn().NumSubscriptions() < subscriptions, "nothing of either is left")
	_, err = adder(b, "svc.meanwhile")(t.Context(), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	serve(t, b, "svc.meanwhile", endpoint.New(add))
}

func TestServeOnAClosedConnection(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener())
	nc := foreign(t, s)
	b, err := bus.New(nc, quiet())
	assert.NoError(t, err)
	serve(t, b, "svc.add", endpoint.New(add))
	nc.Close()
	timed(t, soon, func() {
		failed(t, b.Serve("svc.other", endpoint.New(add)), endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
		_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
		failed(t, b.Ready(t.Context()), endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		assert.NoError(t, b.Stop(t.Context(), "svc.add"))
		assert.NoError(t, b.Drain(t.Context()))
	})
}
