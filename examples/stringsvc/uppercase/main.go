// Command uppercase is one instance of that service.
package main

import (
	"context"
	"strings"

	"postbus.example/endpoint"
	"postbus.example/examples/stringsvc"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("uppercase", "127.0.0.1:0", func(ctx context.Context, p *telemetry.Program) error {
		p.Bus.Use(middleware.Server(p.Defaults), middleware.Client(p.Defaults))
		count := endpoint.Client[stringsvc.Count](p.Bus, "count")
		err := p.Bus.Serve("uppercase", endpoint.Service(stringsvc.Uppercase{
			Uppercase: func(ctx context.Context, r *stringsvc.Text) (*stringsvc.Text, error) {
				length, err := count.Count(ctx, r)
				if err != nil {
					return nil, err
				}
				if length.N == 0 {
					return nil, stringsvc.ErrEmpty
				}
				return &stringsvc.Text{S: strings.ToUpper(r.S)}, nil
			},
		}))
		if err != nil {
			return err
		}
		return p.Serve(ctx)
	})
}
