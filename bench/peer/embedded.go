package peer

import (
	"log/slog"

	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
	"postbus.example/bus"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
)

// Embedded is ours in a program that has everything: the broker, the service and the caller, with a pipe between them.
func Embedded() harness.System {
	return harness.System{
		Name: "embedded",
		Dial: func(string) (func(int) harness.Call, error) {
			s, err := embedded.Start()
			if err != nil {
				return nil, err
			}
			b, err := bus.Connect(s.URL(), bus.WithCodec(codec.Raw), bus.WithLogger(slog.New(slog.DiscardHandler)), bus.WithNATS(nats.InProcessServer(s)))
			if err != nil {
				return nil, err
			}
			if err := b.Serve("embedded.bytes", endpoint.New(echo)); err != nil {
				return nil, err
			}
			return callBytes(b, "embedded.bytes"), nil
		},
	}
}
