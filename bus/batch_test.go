package bus_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// framed waits until calls of a caller go in frames: n at once, again and again, until one was seen.
func framed(t testing.TB, seen *atomic.Int64, call func() error) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for seen.Load() == 0 {
		for _, err := range each(16, func(int) error { return call() }) {
			assert.NoError(t, err)
		}
		if time.Now().After(end) {
			t.Fatal("no frame was sent")
		}
	}
}

// batches counts the batch frames that go to a subject.
func batches(t testing.TB, nc *nats.Conn, subject string) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	respond(t, nc, subject+".~f", func(*nats.Msg) { n.Add(1) })
	return &n
}

// doubles returns a check that no reply came late. An instance sends one again that it was asked for half a second after it sent it,
// which is how long one may be on its way where processors are busy: as many may come twice as somebody asked for.
func doubles(t testing.TB, nc *nats.Conn) (check func(*bus.Bus)) {
	t.Helper()
	var asked atomic.Int64
	respond(t, nc, "_RPC.>", func(m *nats.Msg) {
		if m.Header.Get(wire.Ctl) == wire.VerbPing {
			asked.Add(1)
			for range wire.Calls(m.Data) {
				asked.Add(1)
			}
		}
	})
	return func(b *bus.Bus) {
		t.Helper()
		late := own(b).Late
		assert.Eventually(t, func() bool { return int64(late) <= asked.Load() }, fmt.Sprint(late, " replies were late"))
	}
}

// framers is pair with batch frames, whatever the environment says.
func framers(t testing.TB) (service, caller *bus.Bus, s *embedded.Server) {
	t.Helper()
	s = least(t, func(users map[string]string) { users["client"] = both(t, users["client"], users["discovery"]) })
	return as(t, s, "service", "_RI.svc", bus.Framing(), content(t)), as(t, s, "client", "_RI.cli", bus.Framing(), content(t)), s
}

// TestBatch: calls that begin at the same moment share messages, and each has its own reply.
func TestBatch(t *testing.T) {
	service, caller, s := framers(t)
	serve(t, service, "svc.echo", rawEndpoint(echo))
	seen, late := batches(t, foreign(t, s), "svc.echo"), doubles(t, foreign(t, s))
	call := echoer(caller, "svc.echo")
	framed(t, seen, func() error { _, err := call(t.Context(), []byte("x")); return err })
	for _, err := range each(1000, func(i int) error {
		want := string(rune('a'+i%26)) + time.Duration(i).String()
		got, err := call(t.Context(), []byte(want))
		assert.Equal(t, string(got), want)
		return err
	}) {
		assert.NoError(t, err)
	}
	assert.Equal(t, own(caller).Malformed+own(service).Malformed, uint64(0))
	late(caller)
	assert.Eventually(t, func() bool { return caller.Slots() == 0 }) // a probe may be out, of a call that took longer
}

// TestBatch_room: over a network of its own what frames reserve there is what they take, and all of it is given back.
func TestBatch_room(t *testing.T) {
	s := bustest.Server(t)
	service := bustest.Connect(t, s, quiet(), bus.Framing())
	caller, err := bus.Connect(s.URL(), quiet(), bus.Eager())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = caller.Close() })
	serve(t, service, "svc.echo", rawEndpoint(echo))
	call := echoer(caller, "svc.echo")
	for i := range 10 {
		for _, err := range each(500, func(int) error { _, err := call(t.Context(), make([]byte, 100*i)); return err }) {
			assert.NoError(t, err)
		}
		assert.Eventually(t, func() bool { return caller.Waiting() == 0 && caller.FrameSlots() == 0 })
	}
	assert.True(t, caller.Puts(), "past the client library")
}
