package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// TestAllocBatchCaller counts what a frame of one call allocates at the caller's: what a call that goes alone does, and what the
// frame has of its own. A broker that sends the frame back answers its calls.
func TestAllocBatchCaller(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p := newBroker(t)
	b, err := bus.Connect(p.url(), bus.WithCodec(codec.Raw), quiet(), bus.Eager())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	echo := endpoint.Caller[*[]byte, *[]byte](b, "svc.echo", endpoint.Timeout(1e12))
	body := []byte("hello")
	n := allocations(func() {
		got, err := echo(t.Context(), &body)
		if err != nil || !bytes.Equal(*got, body) {
			t.Fatal(got, err)
		}
	})
	t.Logf("a frame of one call allocates %.2f times at its caller's", n)
	assert.True(t, n < 9.1)
}

// TestAllocBatchService counts what each of the calls in a frame allocates where it is served: less than one that came alone. It is
// the context, and a share of the frame's message and of its bytes.
func TestAllocBatchService(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const calls = 16
	p := newBroker(t)
	b, err := bus.Connect(p.url(), bus.WithCodec(codec.Raw), quiet(), bus.Framing())
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.echo", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { return r, nil }))
	var frame []byte
	for i := range calls {
		frame = wire.AppendEntry(frame, wire.AppendToken([]byte(id(i)), &wire.Request{
			HasTimeout: true, Timeout: time.Minute, HasSent: true, Sent: time.Now().UnixMilli(), MediaType: codec.Raw.Name(), Ack: true,
		}), []byte("hello"))
	}
	request := fmt.Appendf(nil, "MSG svc.echo.~f %s peer.inbox.%s~a1 %d\r\n%s\r\n", p.inboxes["svc.echo.~f"], id(99), len(frame), frame)
	n, size := allocated(func() { p.call(request) })
	t.Logf("each of %d calls in a frame allocates %.2f times where it is served, %.0f bytes", calls, n/calls, size/calls)
	assert.True(t, n/calls < 1.5)
	assert.True(t, size/calls < 140) // 64 of them the context
}
