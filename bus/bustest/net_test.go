package bustest_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestNetLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, caller := n.Connect("service"), n.Connect("caller")
		assert.NoError(t, service.Serve("math.square", endpoint.New(square)))
		n.Link("service").Up.Latency(100 * time.Millisecond)
		n.Link("service").Down.Latency(20 * time.Millisecond)
		n.Link("caller").Up.Latency(3 * time.Millisecond)
		n.Link("caller").Down.Latency(time.Millisecond)
		start := time.Now()
		got, err := endpoint.Caller[*Number, *Square](caller, "math.square")(t.Context(), &Number{7})
		assert.NoError(t, err)
		assert.Equal(t, got.N, 49)
		assert.Equal(t, time.Since(start), 124*time.Millisecond)
	})
}

// What one bubble leaves in pools must not reach the next.
func TestNetsOneAfterTheOther(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			n := bustest.NewNet(t)
			b, nc := n.Connect("one"), n.Dial("other")
			assert.NoError(t, b.Serve("math.square", endpoint.New(square)))
			_, err := nc.Request("math.square", []byte(`{"N":3}`), time.Second)
			assert.NoError(t, err)
			assert.NoError(t, nc.FlushTimeout(time.Second))
			assert.NoError(t, b.Ready(t.Context()))
		})
	}
}

func TestNetRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		b := n.Connect("only")
		assert.NoError(t, b.Serve("math.square", endpoint.New(square)))
		call := endpoint.Caller[*Number, *Square](b, "math.square")
		n.Server.Shutdown()
		synctest.Wait()
		_, err := call(t.Context(), &Number{2})
		assert.ErrorIs(t, err, endpoint.Unavailable)
		time.Sleep(time.Hour)
		assert.NoError(t, n.Server.Restart())
		time.Sleep(5 * time.Second)
		_, err = call(t.Context(), &Number{2})
		assert.NoError(t, err)
	})
}

// A client that reconnects finds its link as it was left.
func TestNetLinkOutlastsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		again := make(chan time.Time, 1)
		nc := n.Dial("cable", nats.ReconnectWait(time.Second), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1),
			nats.ReconnectHandler(func(*nats.Conn) { again <- time.Now() }))
		n.Link("cable").Up.Freeze()
		n.Link("cable").Cut()
		time.Sleep(time.Hour)
		assert.True(t, nc.IsReconnecting(), "the link carries nothing")
		mended := time.Now()
		n.Link("cable").Mend()
		assert.True(t, (<-again).Sub(mended) <= time.Second)
	})
}

// Whatever a test does to its network, its end is clean.
func TestNetEndsInAnyWeather(t *testing.T) {
	for name, spoil := range map[string]func(n *bustest.Net){
		"frozen":      func(n *bustest.Net) { n.Link("service").Up.Freeze(); n.Link("service").Down.Freeze() },
		"a hole":      func(n *bustest.Net) { n.Link("service").Up.Hole() },
		"slow":        func(n *bustest.Net) { n.Link("service").Up.Latency(time.Second) },
		"cut":         func(n *bustest.Net) { n.Link("service").Cut() },
		"no server":   func(n *bustest.Net) { n.Server.Shutdown() },
		"a restart":   func(n *bustest.Net) { _ = n.Server.Restart() },
		"unreachable": func(n *bustest.Net) { n.Link("service").Down.Hole(); n.Link("service").Cut(); time.Sleep(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				service, caller := n.Connect("service"), n.Connect("caller")
				assert.NoError(t, service.Serve("math.square", endpoint.New(square)))
				spoil(n)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, _ = endpoint.Caller[*Number, *Square](caller, "math.square")(ctx, &Number{7})
				assert.True(t, time.Since(start) <= time.Second)
			})
		})
	}
}

func TestNetBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, caller := n.Connect("service"), n.Connect("caller", bus.WithCodec(codec.Raw))
		assert.NoError(t, service.Serve("math.echo", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { return r, nil },
			endpoint.Codec(codec.Raw))))
		n.Link("caller").Down.Bandwidth(1 << 20)
		start := time.Now()
		_, err := endpoint.Caller[[]byte, []byte](caller, "math.echo")(t.Context(), make([]byte, 1<<19))
		assert.NoError(t, err)
		took := time.Since(start)
		assert.True(t, took >= time.Second/2 && took < 510*time.Millisecond, took.String())
	})
}

// Row 5, for those who would rather wait: the calls go out when the connection is back, each once.
func TestRow05WaitForService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, caller := n.Connect("service"), n.Connect("caller")
		var ran atomic.Int32
		assert.NoError(t, service.Serve("math.square", endpoint.New(func(ctx context.Context, r *Number) (*Square, error) {
			ran.Add(1)
			return square(ctx, r)
		})))
		call := endpoint.Caller[*Number, *Square](caller, "math.square", middleware.Retry(middleware.RetryPolicy{WaitForService: true}))
		n.Server.Shutdown()
		synctest.Wait()
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				_, err := call(ctx, &Number{3})
				assert.NoError(t, err)
			})
		}
		time.Sleep(3 * time.Second)
		assert.Equal(t, ran.Load(), int32(0))
		assert.NoError(t, n.Server.Restart())
		wg.Wait()
		took := time.Since(start)
		assert.True(t, took < 3*time.Second+6*time.Second, "the longest delay and a poll after the restart:", took.String())
		assert.Equal(t, ran.Load(), int32(50))
	})
}

func TestNewNetOutsideOfABubble(t *testing.T) {
	defer func() { assert.True(t, recover() != nil, "panics") }()
	bustest.NewNet(t)
}
