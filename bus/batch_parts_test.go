package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// What a broker takes bounds the answers to a frame as well: those that don't share a message share several.
func TestBatchParts_maxPayload(t *testing.T) {
	const most, calls = 8 << 10, 32
	s := least(t, nil, embedded.WithMaxPayload(most))
	service := as(t, s, "service", "_RI.svc", bus.Framing(), content(t))
	serve(t, service, "svc.grow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		return bytes.Repeat(r, 1000/len(r)), nil
	}))
	f := newFramer(t, foreign(t, s))
	f.send(t, "svc.grow", calls, func(i int) (*wire.Request, []byte) { return meta(time.Minute), fmt.Appendf(nil, "%04d", i) })
	for i := range calls {
		assert.Eventually(t, func() bool { return len(f.of(id(i))) == 1 }, id(i))
		assert.Equal(t, string(f.of(id(i))[0].Data), string(bytes.Repeat(fmt.Appendf(nil, "%04d", i), 250)))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	assert.True(t, f.parts > calls*1000/most && f.parts < calls, fmt.Sprint(f.parts, " messages for ", calls, " answers"))
}

// So does it bound the frames, in either direction.
func TestBatchParts_frames(t *testing.T) {
	const most = 8 << 10
	s := least(t, nil, embedded.WithMaxPayload(most))
	service := as(t, s, "service", "_RI.svc", bus.Framing(), content(t))
	caller := as(t, s, "client", "_RI.cli", bus.Eager(), content(t))
	serve(t, service, "svc.echo", rawEndpoint(echo))
	late := doubles(t, foreign(t, s))
	var frames, longest atomic.Int64
	respond(t, foreign(t, s), "svc.echo.~f", func(m *nats.Msg) {
		frames.Add(1)
		longest.Store(max(longest.Load(), int64(len(m.Data)))) // one goroutine has all messages
	})
	call := echoer(caller, "svc.echo")
	for _, err := range each(500, func(i int) error {
		want := bytes.Repeat(fmt.Appendf(nil, "%04d", i), 200)
		got, err := call(t.Context(), want)
		assert.True(t, err != nil || bytes.Equal(got, want), "its own reply")
		return err
	}) {
		assert.NoError(t, err)
	}
	assert.Eventually(t, func() bool { return frames.Load() > 0 && longest.Load() > 800 })
	assert.True(t, longest.Load() <= most, fmt.Sprint(frames.Load(), longest.Load()))
	assert.Equal(t, own(caller).Malformed+own(service).Malformed, uint64(0))
	late(caller)
}

// The calls of a frame that were acked outlive a connection of their caller: each answer was kept, and is sent again to who asks.
func TestBatchParts_callerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := eagerFar(t)
		time.AfterFunc(300*time.Millisecond, func() {
			assert.Equal(t, service.Acked(), 16)
			n.Link("caller").Up.Freeze()
			n.Link("caller").Cut()
		})
		time.AfterFunc(1500*time.Millisecond, func() {
			assert.Equal(t, service.Kept(), 16)
			n.Link("caller").Up.Thaw()
		})
		answered(t, service, caller)
		noneLeft(t, service, caller)
	})
}

// They outlive one of their service: the answers that were ready meanwhile wait for the next, each by itself.
func TestBatchParts_serviceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller := n.Connect("caller", quiet(), bus.Eager())
		nc := n.Dial("service", nats.MaxReconnects(-1), nats.ReconnectWait(60*time.Millisecond), nats.ReconnectJitter(0, 0), nats.ReconnectBufSize(-1))
		service, err := bus.New(nc, quiet(), bus.Framing())
		assert.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, service.Drain(context.Background())) })
		time.AfterFunc(505*time.Millisecond, n.Link("service").Cut) // and back before it is thought dead
		time.AfterFunc(530*time.Millisecond, func() { assert.True(t, service.Unsent() > 5, fmt.Sprint(service.Unsent(), " wait")) })
		answered(t, service, caller)
		time.Sleep(time.Minute)
		assert.Equal(t, service.Acked()+service.Kept()+caller.Slots()+caller.FrameSlots()+caller.Watched(), 0)
	})
}

// answered makes calls whose handlers take about half a second, and wants all answers, each for its own call.
func answered(t *testing.T, service, caller *bus.Bus) {
	t.Helper()
	w := newWaits()
	serve(t, service, "svc.slow", rawEndpoint(w.handle))
	call := echoer(caller, "svc.slow")
	for _, err := range each(16, func(i int) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		body := fmt.Sprintf("%d %dms", i, 500+i)
		got, err := call(ctx, []byte(body))
		assert.True(t, err != nil || string(got) == body, "its own reply")
		return err
	}) {
		assert.NoError(t, err)
	}
	w.once(t, 16, 16)
	assert.Equal(t, own(caller).Late, uint64(0))
}
