package bus_test

import (
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// One item of 1 KiB from a handler's yield to the consumer's loop, and the same by publish and subscribe. Service, broker and
// caller are in this process, with sockets between them.
func BenchmarkStreamItem(b *testing.B) {
	service, caller := bySockets(b)
	var produced atomic.Int64
	serve(b, service, "svc.flood", endpoint.NewServerStream(flooding(&produced), endpoint.Codec(codec.Raw)))
	b.Run("stream", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(itemSize)
		for _, err := range bytesTail(caller, "svc.flood")(b.Context(), nil) {
			assert.NoError(b, err)
			if !b.Loop() {
				break
			}
		}
	})
	b.Run("raw", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(itemSize)
		got := make(chan struct{}, 1)
		var n, want atomic.Int64
		sub, err := caller.Conn().Subscribe("raw.flood", func(*nats.Msg) {
			if n.Add(1) == want.Load() {
				got <- struct{}{}
			}
		})
		assert.NoError(b, err)
		assert.NoError(b, sub.SetPendingLimits(-1, -1))
		assert.NoError(b, caller.Conn().Flush())
		item, sent := make([]byte, itemSize), int64(0)
		const most = 10_000 // a window of this size, since nothing else would hold it back
		for b.Loop() {
			if sent++; sent%most == 0 {
				want.Store(sent)
			}
			assert.NoError(b, service.Conn().Publish("raw.flood", item))
			if sent%most == 0 {
				<-got
			}
		}
		assert.NoError(b, sub.Unsubscribe())
	})
}
