package middleware_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// A service that only a bridge with the right key may speak for somebody to. The bridge has the other half of the key:
//
//	httpbridge.New(bus, httpbridge.Expose("svc.greet"), httpbridge.WithAuth(…), httpbridge.WithIdentity("edge-1", private))
func ExampleVerifyIdentity() {
	public, _ := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	greet := func(ctx context.Context, _ *addRequest) (*greeting, error) {
		return &greeting{Text: "hello " + middleware.IdentityFrom(ctx).Subject}, nil
	}
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.greet", endpoint.New(greet, middleware.VerifyIdentity(middleware.IdentityPolicy{Keys: []ed25519.PublicKey{public}})))

	call := endpoint.Caller[*addRequest, *greeting](mux, "svc.greet")
	_, err := call(endpoint.WithHeader(context.Background(), "Postbus-Identity", "I am alice"), &addRequest{})
	fmt.Println(err, endpoint.OutcomeOf(err))
	// Output: unauthenticated not_executed
}
