package peer

import (
	"context"
	"encoding/json"
	"errors"

	kitnats "github.com/go-kit/kit/transport/nats"
	"github.com/nats-io/nats.go"

	"postbus.example/bench/harness"
)

// GoKit is Go kit's NATS transport with typed calls in JSON.
func GoKit() harness.System {
	return harness.System{
		Name: "gokit", Broker: true,
		Serve: func(url string) (string, error) {
			nc, err := serving.connect(url)
			if err != nil {
				return "", err
			}
			service := kitnats.NewSubscriber(
				func(_ context.Context, r any) (any, error) { return add(r.(*AddRequest)), nil },
				func(_ context.Context, m *nats.Msg) (any, error) {
					r := new(AddRequest)
					return r, json.Unmarshal(m.Data, r)
				},
				kitnats.EncodeJSONResponse,
			)
			_, err = nc.QueueSubscribe("gokit.json", "q", service.ServeMsg(nc))
			return url, errors.Join(err, nc.Flush())
		},
		Dial: func(url string) (func(int) harness.Call, error) {
			nc, err := calling.connect(url)
			if err != nil {
				return nil, err
			}
			call := kitnats.NewPublisher(nc, "gokit.json", kitnats.EncodeJSONRequest, func(_ context.Context, m *nats.Msg) (any, error) {
				p := new(AddResponse)
				return p, json.Unmarshal(m.Data, p)
			}).Endpoint()
			return func(size int) harness.Call {
				r := request(size)
				return func(ctx context.Context) error {
					p, err := call(ctx, r)
					if err != nil {
						return err
					}
					return right(p.(*AddResponse).Sum, p.(*AddResponse).Data, r)
				}
			}, nil
		},
	}
}
