// Command bridge is the shop's front door. It is one line of options; postbus bridge does the same without a line of Go:
//
//	postbus bridge --listen :8080 --expose 'catalog.*' --expose 'orders.*' --route 'GET /prices/{item}=catalog.price' --openapi-title Shop
package main

import (
	"context"

	"postbus.example/examples/telemetry"
	"postbus.example/httpbridge"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("gateway", ":8080", func(ctx context.Context, p *telemetry.Program) error {
		p.Bus.Use(middleware.Client(p.Defaults))
		return p.Serve(ctx,
			httpbridge.Expose("catalog.*", "orders.*"),
			httpbridge.Route("GET /prices/{item}", "catalog.price"),
			httpbridge.WithOpenAPI(httpbridge.Info{Title: "Shop"}))
	})
}
