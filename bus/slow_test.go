package bus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Row 14: the broker finds that a caller's network does not take what comes, and drops the connection. Whoever waits on it is
// told so, and it is made anew.
func TestRow14SlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t, embedded.WithConfig(`max_pending: 2MB, write_deadline: "2s"`))
		service, caller := n.Connect("service", quiet()), n.Connect("caller", quiet(), bus.WithDefaultTimeout(time.Minute))
		serve(t, service, "svc.big", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			return make([]byte, 500_000), nil
		}))
		call := echoer(caller, "svc.big")
		n.Link("caller").Down.Bandwidth(100_000)
		n.Link("caller").Down.Window(200_000) // what does not fit waits at the broker, which counts it
		reconnects := own(caller).Reconnects
		start := time.Now()
		lost := 0
		for _, err := range each(40, func(int) error {
			_, err := call(t.Context(), nil)
			return err
		}) {
			if err != nil {
				lost++
				failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
			}
		}
		assert.True(t, lost > 0, "the connection was dropped")
		assert.True(t, time.Since(start) < 10*time.Second, time.Since(start).String())
		n.Link("caller").Down.Bandwidth(0)
		n.Link("caller").Down.Window(0)
		time.Sleep(5 * time.Second)
		assert.True(t, own(caller).Reconnects > reconnects)
		_, err := call(t.Context(), nil)
		assert.True(t, !errors.Is(err, endpoint.Unavailable), "it is back")
		assert.NoError(t, err)
	})
}
