package bus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/internal/assert"
)

// A bus that drains does not go to another server any more: it is at its end sooner than the server is.
func TestDrainDoesNotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		two := func(o *nats.Options) error {
			o.Servers = []string{"nats://127.0.0.1:4222", "nats://127.0.0.2:4222"}
			return nil
		}
		service, caller := n.Connect("service", quiet(), bus.WithNATS(two)), n.Connect("caller", quiet())
		serve(t, service, "svc.work", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(5 * time.Second)
			return r, nil
		}))
		done := deadline(t, echoer(caller, "svc.work"), time.Minute)
		time.Sleep(time.Second)
		go service.Move()
		assert.NoError(t, service.Drain(t.Context()))
		assert.NoError(t, <-done)
		assert.Equal(t, own(service).Reconnects, uint64(0))
	})
}
