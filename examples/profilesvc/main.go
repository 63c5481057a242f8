// Command profilesvc keeps profiles and their addresses, and offers them over HTTP as REST has it. Service and bridge are one
// process here; the bridge could as well be another, for it knows nothing but the routes.
package main

import (
	"context"

	"postbus.example/endpoint"
	"postbus.example/examples/telemetry"
	"postbus.example/httpbridge"
	"postbus.example/middleware"
)

// routes are the whole of HTTP. What stands in braces is a field of the request.
var routes = map[string]string{
	"POST /profiles/{$}":                        "profiles.post",
	"GET /profiles/{id}":                        "profiles.get",
	"PUT /profiles/{id}":                        "profiles.put",
	"PATCH /profiles/{id}":                      "profiles.patch",
	"DELETE /profiles/{id}":                     "profiles.delete",
	"GET /profiles/{profile}/addresses/{$}":     "profiles.addresses.list",
	"GET /profiles/{profile}/addresses/{id}":    "profiles.addresses.get",
	"POST /profiles/{profile}/addresses/{$}":    "profiles.addresses.post",
	"DELETE /profiles/{profile}/addresses/{id}": "profiles.addresses.delete",
}

// bridge are the options of the HTTP bridge: the routes, and a document of them at /openapi.json.
func bridge() []httpbridge.Option {
	opts := []httpbridge.Option{httpbridge.WithOpenAPI(httpbridge.Info{Title: "Profiles", Version: "1.0.0"})}
	for pattern, subject := range routes {
		opts = append(opts, httpbridge.Route(pattern, subject))
	}
	return opts
}

func main() {
	telemetry.Run("profilesvc", ":8080", func(ctx context.Context, p *telemetry.Program) error {
		p.Defaults.Limiter = p.Limiter
		p.Bus.Use(middleware.Server(p.Defaults))
		if err := p.Bus.Serve("profiles", endpoint.Service(newStore().service())); err != nil {
			return err
		}
		return p.Serve(ctx, bridge()...)
	})
}
