package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// BenchmarkCall puts nats.go by hand and the bus side by side, over loopback, with a connection for each side:
//
//	go test -run '^$' -bench Call -benchtime 2s ./bus
func BenchmarkCall(b *testing.B) {
	s := bustest.Server(b)
	body := []byte(`{"A":1,"B":2}`)
	connect := func() *bus.Bus {
		x, err := bus.Connect(s.URL(), quiet())
		assert.NoError(b, err)
		b.Cleanup(func() { _ = x.Close() })
		return x
	}
	dial := func() *nats.Conn {
		nc, err := nats.Connect(s.URL())
		assert.NoError(b, err)
		b.Cleanup(nc.Close)
		return nc
	}
	server, client, service, caller := dial(), dial(), connect(), connect()
	byHand(b, server)
	serveBoth(b, service)
	echoes, sum := echoer(caller, "bus.raw"), adder(caller, "bus.json")
	for _, c := range []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"raw/nats", func(context.Context) error {
			_, err := client.Request("hand.raw", body, 10*time.Second)
			return err
		}},
		{"raw/bus", func(ctx context.Context) error {
			_, err := echoes(ctx, body)
			return err
		}},
		{"json/nats", func(context.Context) error {
			body, err := json.Marshal(&AddRequest{1, 2})
			if err != nil {
				return err
			}
			m, err := client.Request("hand.json", body, 10*time.Second)
			if err != nil {
				return err
			}
			var out AddResponse
			return json.Unmarshal(m.Data, &out)
		}},
		{"json/bus", func(ctx context.Context) error {
			_, err := sum(ctx, &AddRequest{1, 2})
			return err
		}},
	} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", c.name, callers), func(b *testing.B) { together(b, callers, c.call) })
		}
	}
}

func byHand(b *testing.B, nc *nats.Conn) {
	b.Helper()
	_, err := nc.QueueSubscribe("hand.raw", "q", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	assert.NoError(b, err)
	_, err = nc.QueueSubscribe("hand.json", "q", func(m *nats.Msg) {
		var r AddRequest
		if json.Unmarshal(m.Data, &r) != nil {
			return
		}
		if out, err := json.Marshal(&AddResponse{r.A + r.B}); err == nil {
			_ = m.Respond(out)
		}
	})
	assert.NoError(b, err)
	assert.NoError(b, nc.Flush())
}

func serveBoth(b *testing.B, service *bus.Bus) {
	b.Helper()
	serve(b, service, "bus.raw", rawEndpoint(echo))
	serve(b, service, "bus.json", endpoint.New(add))
}

// together runs the call from n goroutines at once.
func together(b *testing.B, n int, call func(context.Context) error) {
	b.Helper()
	b.ReportAllocs()
	ctx := b.Context()
	if n == 1 {
		for b.Loop() {
			if err := call(ctx); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.SetParallelism(max(n/runtime.GOMAXPROCS(0), 1))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
