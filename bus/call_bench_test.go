package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/internal/assert"
)

// A whole call: caller, broker and service in this process.
func BenchmarkCall(b *testing.B) {
	s := bustest.Server(b)
	for name, way := range map[string]bus.Option{
		"in process": bus.WithNATS(nats.InProcessServer(s)),
		"loopback":   bus.WithNATS(func(o *nats.Options) error { o.Url = s.URL(); return nil }),
	} {
		b.Run(name, func(b *testing.B) {
			connect := func() *bus.Bus {
				x, err := bus.Connect("", quiet(), way)
				assert.NoError(b, err)
				b.Cleanup(func() { _ = x.Close() })
				return x
			}
			service, caller := connect(), connect()
			serve(b, service, "svc.echo", rawEndpoint(echo))
			call := echoer(caller, "svc.echo")
			body := make([]byte, 20)
			one := func(b *testing.B) {
				b.Helper()
				if _, err := call(b.Context(), body); err != nil {
					b.Error(err)
				}
			}
			one(b)
			b.Run("one", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					one(b)
				}
			})
			b.Run("many", func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						one(b)
					}
				})
			})
		})
	}
}
