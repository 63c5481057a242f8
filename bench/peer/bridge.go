package peer

import (
	"context"
	"log/slog"

	"postbus.example/bench/harness"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
)

// Bridge is our HTTP bridge, in one process with the service, each with a connection of its own: calls go through the broker.
func Bridge() harness.System {
	return harness.System{
		Name: "bridge", Broker: true,
		Serve: func(url string) (string, error) {
			ep := endpoint.New(func(_ context.Context, r *AddRequest) (*AddResponse, error) { return add(r), nil })
			if _, err := serve("bridge.add", ep, codec.JSON)(url); err != nil {
				return "", err
			}
			b, err := calling.attach(url, codec.JSON)
			if err != nil {
				return "", err
			}
			return serveHTTP(httpbridge.New(b, httpbridge.Expose("bridge.add"),
				httpbridge.WithLimits(httpbridge.Limits{Concurrent: 4096}), httpbridge.WithLogger(slog.New(slog.DiscardHandler))))
		},
		Dial: dialHTTP("/bridge/add"),
	}
}
