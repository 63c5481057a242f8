package peer

import (
	"errors"

	"github.com/nats-io/nats.go/micro"

	"postbus.example/bench/harness"
)

// Micro is the NATS services framework on the service's side, which runs handlers one after another, and nats.go on the client's.
func Micro() harness.System {
	return harness.System{
		Name: "micro", Broker: true,
		Serve: func(url string) (string, error) {
			nc, err := serving.connect(url)
			if err != nil {
				return "", err
			}
			s, err := micro.AddService(nc, micro.Config{Name: "bench", Version: "1.0.0"})
			if err != nil {
				return "", err
			}
			echo := micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) })
			return url, errors.Join(s.AddEndpoint("echo", echo, micro.WithEndpointSubject("micro.bytes")), nc.Flush())
		},
		Dial: dialRaw("micro.bytes"),
	}
}
