// Command catalog is one instance of the catalog; start as many as you like.
package main

import (
	"context"

	"postbus.example/endpoint"
	"postbus.example/examples/gateway"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

var prices = map[string]int{"tea": 350, "coffee": 420}

func price(ctx context.Context, r *gateway.Item) (*gateway.Price, error) {
	cents, ok := prices[r.Item]
	if !ok {
		return nil, endpoint.NotFound.Errorf("there is no %s", r.Item)
	}
	return &gateway.Price{Cents: cents, Instance: endpoint.FromContext(ctx).Instance()}, nil
}

func main() {
	telemetry.Run("catalog", "127.0.0.1:0", func(ctx context.Context, p *telemetry.Program) error {
		p.Bus.Use(middleware.Server(p.Defaults))
		if err := p.Bus.Serve("catalog", endpoint.Service(gateway.Catalog{Price: price})); err != nil {
			return err
		}
		return p.Serve(ctx)
	})
}
