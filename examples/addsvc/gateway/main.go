// Command gateway offers addsvc over HTTP:
//
//	curl -H 'Content-Type: application/json' -d '{"a":1,"b":2}' localhost:8080/addsvc/sum
package main

import (
	"context"

	"postbus.example/examples/telemetry"
	"postbus.example/httpbridge"
	"postbus.example/middleware"
)

func main() {
	telemetry.Run("addsvc-gateway", ":8080", func(ctx context.Context, p *telemetry.Program) error {
		p.Defaults.CallLimiter = p.Limiter
		p.Bus.Use(middleware.Client(p.Defaults))
		return p.Serve(ctx, httpbridge.Expose("addsvc.sum", "addsvc.concat"))
	})
}
