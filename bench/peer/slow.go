package peer

import (
	"context"
	"sync/atomic"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
)

// Slow is ours with bytes, where each hundredth handler blocks for 5 ms.
func Slow() harness.System {
	var n atomic.Uint64
	ep := endpoint.New(func(ctx context.Context, r []byte) ([]byte, error) {
		if n.Add(1)%100 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		return echo(ctx, r)
	})
	return harness.System{
		Name: "postbus-slow", Broker: true,
		Serve: serve("slow.bytes", ep, codec.Raw),
		Dial:  dialBytes("slow.bytes"),
	}
}
