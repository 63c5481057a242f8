package httpbridge

import (
	"context"

	"postbus.example/endpoint"
)

// Endpoints lists what is known of what is exposed.
func (b *Bridge) Endpoints(ctx context.Context) ([]endpoint.EndpointInfo, error) {
	known, err := b.directory.endpoints(ctx)
	var out []endpoint.EndpointInfo
	for _, p := range known {
		out = append(out, p.EndpointInfo)
	}
	return out, err
}
