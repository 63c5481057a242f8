package bustest_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// A bridge with the grants of its role passes on what it exposes, says at once that nobody is there, and asks for no more.
func TestBridgeWithTheGrantsOfItsRole(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithConfig(`authorization { users: [
		{ user: service, password: p, `+bus.Permissions(bus.ServiceRole, "svc")+` }
		{ user: bridge, password: p, `+bus.Permissions(bus.BridgeRole, "svc", "svc.add", "svc.gone")+` }
	] }`))
	as := func(user, prefix string) *bus.Bus {
		return connect(t, s, bus.WithNATS(nats.UserInfo(user, "p")), bus.WithInboxPrefix(prefix))
	}
	assert.NoError(t, as("service", "_RI.svc").Serve("svc.add", endpoint.New(add)))
	b := as("bridge", "_RI.http")
	url := bridge(t, b, httpbridge.Expose("svc.add", "svc.gone"))
	took := quickest(func() {
		code, body := post(t, url+"/svc/add", `{"a":1,"b":2}`)
		assert.Equal(t, code, 200)
		assert.Equal(t, body, `{"sum":3}`)
		code, _ = post(t, url+"/svc/gone", `{}`)
		assert.Equal(t, code, 503)
		code, _ = post(t, url+"/svc/secret", `{}`)
		assert.Equal(t, code, 404)
	})
	assert.True(t, took < time.Second, took.String())
	assert.NoError(t, b.Ready(t.Context()))
}
