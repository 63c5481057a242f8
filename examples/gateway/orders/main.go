// Command orders takes orders, and asks the catalog over the bus what they cost.
package main

import (
	"context"

	"postbus.example/endpoint"
	"postbus.example/examples/gateway"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("orders", "127.0.0.1:0", func(ctx context.Context, p *telemetry.Program) error {
		p.Bus.Use(middleware.Server(p.Defaults), middleware.Client(p.Defaults))
		catalog := endpoint.Client[gateway.Catalog](p.Bus, "catalog")
		place := func(ctx context.Context, r *gateway.Order) (*gateway.Receipt, error) {
			if r.Count < 1 {
				return nil, endpoint.InvalidArgument.New("count must be 1 at least")
			}
			price, err := catalog.Price(ctx, &gateway.Item{Item: r.Item})
			if err != nil {
				return nil, err
			}
			return &gateway.Receipt{Cents: r.Count * price.Cents}, nil
		}
		// What the catalog says is for our customers, too.
		if err := p.Bus.Serve("orders", endpoint.Service(gateway.Orders{Place: place}, middleware.Forward())); err != nil {
			return err
		}
		return p.Serve(ctx)
	})
}
