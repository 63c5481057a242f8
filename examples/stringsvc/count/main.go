// Command count is one instance of that service.
package main

import (
	"context"
	"unicode/utf8"

	"postbus.example/endpoint"
	"postbus.example/examples/stringsvc"
	"postbus.example/examples/telemetry"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("count", "127.0.0.1:0", func(ctx context.Context, p *telemetry.Program) error {
		p.Bus.Use(middleware.Server(p.Defaults), middleware.Client(p.Defaults))
		uppercase := endpoint.Client[stringsvc.Uppercase](p.Bus, "uppercase")
		err := p.Bus.Serve("count", endpoint.Service(stringsvc.Count{
			Count: func(_ context.Context, r *stringsvc.Text) (*stringsvc.Number, error) {
				return &stringsvc.Number{N: utf8.RuneCountInString(r.S)}, nil
			},
			Distinct: func(ctx context.Context, r *stringsvc.Text) (*stringsvc.Number, error) {
				upper, err := uppercase.Uppercase(ctx, r)
				if err != nil {
					return nil, err
				}
				letters := map[rune]bool{}
				for _, letter := range upper.S {
					letters[letter] = true
				}
				return &stringsvc.Number{N: len(letters)}, nil
			},
		}, middleware.Forward())) // what uppercase says is for our callers, too
		if err != nil {
			return err
		}
		return p.Serve(ctx)
	})
}
