package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// crowded is two buses, the second one of a program whose own work keeps the processors busy.
func crowded(t testing.TB) (service, caller *bus.Bus, s *embedded.Server) {
	t.Helper()
	s = bustest.Server(t, embedded.WithAddr("127.0.0.1:0"))
	service, caller = connect(t, s, quiet()), connect(t, s, quiet(), bus.WithNATS(socket(s)))
	caller.Crowd()
	return service, caller, s
}

// Callers who wake each other all get their replies, whatever becomes of some of them: they leave, their time is up, they are
// answered twice, or an answer is none.
func TestRelay(t *testing.T) {
	_, caller, s := crowded(t)
	nc := foreign(t, s)
	respond(t, nc, "svc.echo", func(m *nats.Msg) {
		assert.NoError(t, m.Respond(m.Data))
		if len(m.Data)%5 == 0 {
			assert.NoError(t, m.Respond(m.Data))
		}
	})
	call := echoer(caller, "svc.echo")
	var answered, gone atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for n := range 100 {
				body := fmt.Appendf(nil, "%d.%d", i, n)
				limit := time.Minute
				if n%4 == 0 {
					limit = time.Duration(1+random.IntN(300)) * time.Microsecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				if n%4 == 1 {
					time.AfterFunc(time.Duration(random.IntN(300))*time.Microsecond, cancel)
				}
				got, err := call(ctx, body)
				cancel()
				switch endpoint.CodeOf(err) {
				case endpoint.OK:
					assert.Equal(t, string(got), string(body))
					answered.Add(1)
				case endpoint.Canceled, endpoint.DeadlineExceeded:
					gone.Add(1)
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	assert.True(t, answered.Load() > 0 && gone.Load() > 0)
	assert.Eventually(t, func() bool { return caller.Slots() == 0 && caller.Relaying() == 0 })
}

// Who was woken wakes the next one before anything else, and what it then does holds nobody up.
func TestRelay_goesOn(t *testing.T) {
	const callers = 16
	service, caller, _ := crowded(t)
	serve(t, service, "svc.echo", rawEndpoint(echo))
	call := echoer(caller, "svc.echo")
	g := newGate(t)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			_, err := call(t.Context(), []byte("x"))
			assert.NoError(t, err)
			g.pass()
		})
	}
	g.await(t, callers)
	g.open()
	wg.Wait()
	assert.Equal(t, caller.Relaying(), 0)
}

// The end of the bus is told to nobody whose reply is there.
func TestRelay_end(t *testing.T) {
	service, caller, _ := crowded(t)
	serve(t, service, "svc.echo", rawEndpoint(echo))
	call := echoer(caller, "svc.echo")
	caller.Lead() // as if one were woken and had no turn
	ends := make(chan error, 8)
	for range cap(ends) {
		go func() {
			_, err := call(t.Context(), []byte("x"))
			ends <- err
		}()
	}
	assert.Eventually(t, func() bool { return caller.Relaying() == cap(ends) })
	assert.NoError(t, caller.Close())
	for range cap(ends) {
		assert.NoError(t, <-ends)
	}
}
