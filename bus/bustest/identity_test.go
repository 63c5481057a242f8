package bustest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net/http"
	"testing"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

type whoRequest struct{}

type whoReply struct {
	Who string `json:"who"`
}

// TestIdentityOverTheBus follows a caller from HTTP to a service, past a peer that may publish there, too, and read the
// requests: it can repeat what it saw where it saw it, and make up nothing.
func TestIdentityOverTheBus(t *testing.T) {
	s := bustest.Server(t)
	key := func(seed byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	}
	service, edge, peer := connect(t, s), connect(t, s), connect(t, s)
	service.Use(middleware.VerifyIdentity(middleware.IdentityPolicy{Keys: []ed25519.PublicKey{key(1).Public().(ed25519.PublicKey)}}))
	seen := make(chan string, 100)
	who := endpoint.New(func(ctx context.Context, _ *whoRequest) (*whoReply, error) {
		seen <- endpoint.FromContext(ctx).Header.Get("Postbus-Identity")
		return &whoReply{Who: middleware.IdentityFrom(ctx).Subject}, nil
	})
	assert.NoError(t, service.Serve("svc.who", who))
	assert.NoError(t, service.Serve("svc.admin", who))
	stream := func(ctx context.Context, _ *whoRequest, send func(*whoReply) error) error {
		return send(&whoReply{Who: middleware.IdentityFrom(ctx).Subject})
	}
	assert.NoError(t, service.Serve("svc.watch", endpoint.NewServerStream(endpoint.Emit(stream))))
	name := func(r *http.Request) (context.Context, error) {
		return httpbridge.Identify(r.Context(), &httpbridge.Identity{Subject: r.Header.Get("Authorization")}), nil
	}
	url := bridge(t, edge, httpbridge.Expose("svc.who", "svc.watch"), httpbridge.WithJSONRPC(""), httpbridge.WithAuth(name), httpbridge.WithIdentity("edge", key(1)))

	code, body := post(t, url+"/svc/who", `{}`, "Authorization", "ann", "Postbus-Identity", "mallory")
	assert.Equal(t, code, 200, body)
	assert.Equal(t, body, `{"who":"ann"}`)
	value := <-seen

	code, body = post(t, url+"/svc/watch", `{}`, "Authorization", "ann", "Accept", "text/event-stream")
	assert.Equal(t, code, 200, body)
	assert.Equal(t, body, "id: 1\ndata: {\"who\":\"ann\"}\n\nevent: end\ndata: {}\n\n")
	code, body = post(t, url+"/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.who"}`, "Authorization", "bob")
	assert.Equal(t, code, 200, body)
	assert.Equal(t, body, `{"jsonrpc":"2.0","id":1,"result":{"who":"bob"}}`)
	<-seen

	replies := make(chan int, 100) // at once, so that they travel together
	for range cap(replies) {
		go func() {
			code, _ := post(t, url+"/svc/who", `{}`, "Authorization", "ann")
			replies <- code
		}()
	}
	for range cap(replies) {
		<-seen
		assert.Equal(t, <-replies, 200)
	}

	forger := bridge(t, peer, httpbridge.Expose("svc.who"), httpbridge.WithAuth(name), httpbridge.WithIdentity("edge", key(2)))
	code, body = post(t, forger+"/svc/who", `{}`, "Authorization", "root")
	assert.Equal(t, code, 401, body)
	for _, c := range []struct {
		on   *bus.Bus
		to   string
		send []string
		want error
	}{
		{peer, "svc.who", nil, endpoint.Unauthenticated},
		{peer, "svc.who", []string{"Postbus-Identity", "root"}, endpoint.Unauthenticated},
		{peer, "svc.admin", []string{"Postbus-Identity", value}, endpoint.Unauthenticated},
		{peer, "svc.who", []string{"Postbus-Identity", value}, nil}, // within seconds, where it was seen: as documented
	} {
		call := endpoint.Caller[*whoRequest, *whoReply](c.on, c.to)
		_, err := call(endpoint.WithHeader(t.Context(), c.send...), &whoRequest{})
		assert.Equal(t, endpoint.CodeOf(err), endpoint.CodeOf(c.want), c.to)
		if c.want == nil {
			<-seen
		}
	}
	assert.Equal(t, len(seen), 0)
}
