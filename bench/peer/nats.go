package peer

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
)

// Raw is nats.go by hand: Request on one side, QueueSubscribe and Publish on the other.
func Raw() harness.System {
	return harness.System{
		Name: "raw", Broker: true,
		Serve: func(url string) (string, error) {
			nc, err := serving.connect(url)
			if err != nil {
				return "", err
			}
			_, err = nc.QueueSubscribe("hand.bytes", "q", func(m *nats.Msg) { _ = nc.Publish(m.Reply, m.Data) })
			return url, errors.Join(err, nc.Flush())
		},
		Dial: dialRaw("hand.bytes"),
	}
}

// dialRaw calls a subject with bytes, as nats.go does it.
func dialRaw(subject string) func(string) (func(int) harness.Call, error) {
	return func(url string) (func(int) harness.Call, error) {
		nc, err := calling.connect(url)
		if err != nil {
			return nil, err
		}
		return requestBytes(nc, subject), nil
	}
}

func requestBytes(nc *nats.Conn, subject string) func(int) harness.Call {
	return func(size int) harness.Call {
		r := body(size)
		return func(ctx context.Context) error {
			m, err := nc.RequestWithContext(ctx, subject, r)
			if err == nil && len(m.Data) != len(r) {
				return errWrong
			}
			return err
		}
	}
}
