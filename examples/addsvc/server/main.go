// Command server is one instance of addsvc; start as many as you like.
package main

import (
	"context"

	"postbus.example/endpoint"
	"postbus.example/examples/addsvc"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("addsvc", "127.0.0.1:0", func(ctx context.Context, p *telemetry.Program) error {
		p.Defaults.Limiter = p.Limiter
		p.Bus.Use(middleware.Server(p.Defaults))
		if err := p.Bus.Serve("addsvc", endpoint.Service(addsvc.New())); err != nil {
			return err
		}
		return p.Serve(ctx)
	})
}
