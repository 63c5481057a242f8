package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The roles of docs/protocol.md do all that they are for, at once, and the connection below the bus is usable, too.
func TestLeastPrivilege(t *testing.T) {
	s := bustest.Server(t, embedded.WithoutListener(), embedded.WithUsers(
		embedded.User{
			Name: "service", Password: "p", Publish: embedded.Permission{Allow: []string{"_RI.>"}},
			Subscribe: embedded.Permission{Allow: []string{"svc.> q", "_RI.svc.>", "$SRV.PING", "$SRV.INFO", "$SRV.STATS", "$SRV.*.svc", "$SRV.*.svc.*"}},
		},
		embedded.User{
			Name: "caller", Password: "p", Publish: embedded.Permission{Allow: []string{"svc.>"}},
			Subscribe: embedded.Permission{Allow: []string{"_RI.caller.>"}},
		},
		embedded.User{
			Name: "finder", Password: "p", Publish: embedded.Permission{Allow: []string{"$SRV.INFO", "$SRV.INFO.svc"}},
			Subscribe: embedded.Permission{Allow: []string{"_RI.finder.>"}},
		},
	))
	as := func(user, prefix string) *bus.Bus {
		t.Helper()
		return bustest.Connect(t, s, quiet(), bus.WithNATS(nats.UserInfo(user, "p")), bus.WithInboxPrefix(prefix))
	}
	service, caller, finder := as("service", "_RI.svc"), as("caller", "_RI.caller"), as("finder", "_RI.finder")
	serve(t, service, "svc.add", endpoint.New(add))
	timed(t, 1500*time.Millisecond, func() {
		assert.NoError(t, service.Ready(t.Context()))
		assert.NoError(t, caller.Ready(t.Context()))
		_, err := adder(caller, "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		_, err = caller.Discover(t.Context(), "svc")
		failed(t, err, endpoint.PermissionDenied, "", endpoint.NotExecuted)
		m, err := caller.Conn().Request("svc.add", []byte(`{"A":1,"B":2}`), 500*time.Millisecond)
		assert.NoError(t, err, "Conn().Request")
		assert.Equal(t, string(m.Data), `{"Sum":3}`)
	})
	for _, name := range []string{"", "svc"} {
		found, err := finder.Discover(t.Context(), name)
		assert.NoError(t, err)
		assert.Equal(t, len(found), 1)
	}
}
