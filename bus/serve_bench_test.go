package bus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/codec/protobuf"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// What a call costs where it is served, whoever sent it: an operation is one call. They come in frames of 16 or alone, 128 in one
// write, and the next ones when all of these have run.
func BenchmarkService(b *testing.B) {
	const calls, frames = 16, 8
	for name, c := range map[string]codec.Codec{"bytes": codec.Raw, "protobuf": protobuf.Binary} {
		for _, framed := range []bool{true, false} {
			b.Run(fmt.Sprint(name, "/framed=", framed), func(b *testing.B) {
				p := newBroker(b)
				x, err := bus.Connect(p.url(), bus.WithCodec(c), quiet(), bus.Framing())
				assert.NoError(b, err)
				b.Cleanup(func() { _ = x.Close() })
				var ran atomic.Int64
				done := make(chan struct{}, 1)
				count := func() {
					if ran.Add(1)%(calls*frames) == 0 {
						done <- struct{}{}
					}
				}
				body := []byte("hello")
				if c == codec.Raw {
					serve(b, x, "svc.echo", endpoint.New(func(_ context.Context, r []byte) ([]byte, error) { count(); return r, nil }))
				} else {
					serve(b, x, "svc.echo", endpoint.New(func(_ context.Context, r *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
						count()
						return &wrapperspb.Int64Value{Value: r.GetValue()}, nil
					}))
					body = []byte{8, 42}
				}
				token := func(i int) []byte {
					return wire.AppendToken([]byte(id(i)), &wire.Request{
						HasTimeout: true, Timeout: time.Minute, HasSent: true, Sent: time.Now().UnixMilli(), MediaType: c.Name(), Ack: true,
					})
				}
				var out, frame []byte
				for i := range calls {
					frame = wire.AppendEntry(frame, token(i), body)
				}
				for i := range frames * calls {
					switch {
					case !framed:
						out = fmt.Appendf(out, "MSG svc.echo %s peer.inbox.%s %d\r\n%s\r\n", p.echo, token(i), len(body), body)
					case i < frames:
						out = fmt.Appendf(out, "MSG svc.echo.~f %s peer.inbox.%s~a1 %d\r\n%s\r\n", p.inboxes["svc.echo.~f"], id(i), len(frame), frame)
					}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%(calls*frames) == 0 {
						_, _ = p.conn.Write(out)
						<-done
					}
				}
			})
		}
	}
}
