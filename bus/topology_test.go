package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// leaf starts a hub with a user for leaf nodes that has the grants, and a leaf node that is connected as this user.
func leaf(t testing.TB, grants string) (hub, leaf *embedded.Server) {
	t.Helper()
	hub = bustest.Server(t, embedded.WithConfig(`no_auth_user: root, authorization { users: [
		{ user: root, password: root }
		{ user: leaf, password: leaf
	`+grants+`} ] }
	leafnodes { port: -1 }`))
	v, err := hub.NATS().Varz(nil)
	assert.NoError(t, err)
	leaf = bustest.Server(t, embedded.WithConfig(fmt.Sprintf(
		`leafnodes { remotes: [ { url: "nats-leaf://leaf:leaf@127.0.0.1:%d" } ] }`, v.LeafNode.Port)))
	assert.Eventually(t, func() bool { return hub.NATS().NumLeafNodes() == 1 && leaf.NATS().NumLeafNodes() == 1 })
	return hub, leaf
}

// A leaf node whose user at the hub has the grants of a client lets its clients call that service, and no more.
func TestRestrictedLeafNode(t *testing.T) {
	hub, edge := leaf(t, bus.Permissions(bus.ClientRole, "svc"))
	service := connect(t, hub, quiet())
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, service, "other.add", endpoint.New(add))
	client := connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.cli"))
	assert.Eventually(t, func() bool {
		_, err := adder(client, "svc.add")(t.Context(), &AddRequest{1, 2})
		return err == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	obs, report := endpoint.Observe(ctx)
	_, err := adder(client, "svc.add")(obs, &AddRequest{1, 13})
	failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
	assert.Equal(t, report.Instance, service.ID())
	for _, subject := range []string{"other.add", "svc.none"} {
		timed(t, soon, func() {
			_, err = adder(client, subject)(ctx, &AddRequest{1, 2})
			failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		})
	}
	assert.Equal(t, statsOf(t, service, "other.add").Calls, uint64(0))
	near := connect(t, edge, quiet())
	serve(t, near, "svc.add", endpoint.New(add))
	for range 20 {
		obs, report := endpoint.Observe(ctx)
		_, err = adder(client, "svc.add")(obs, &AddRequest{1, 2})
		assert.NoError(t, err)
		assert.Equal(t, report.Instance, near.ID(), "who is on this side comes first")
	}
}

// behindALeafNode is the grants of a service for the user of a leaf node: the broker knows no queue groups in those.
func behindALeafNode(t testing.TB) string {
	t.Helper()
	text := bus.Permissions(bus.ServiceRole, "svc")
	assert.Contains(t, text, `"svc.> q"`)
	return strings.Replace(text, "svc.> q", "svc.>", 1)
}

// A service at a leaf node whose user at the hub has the grants of a service.
func TestServiceBehindALeafNode(t *testing.T) {
	hub, edge := leaf(t, behindALeafNode(t))
	service := connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.svc"))
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, service, "other.add", endpoint.New(add))
	client := connect(t, hub, quiet(), bus.WithInboxPrefix("_RI.cli"))
	assert.Eventually(t, func() bool {
		_, err := adder(client, "svc.add")(t.Context(), &AddRequest{1, 2})
		return err == nil
	})
	timed(t, soon, func() {
		_, err := adder(client, "other.add")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	})
	found, err := client.Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1)
}

// superCluster starts two clusters of two servers, joined by gateways.
func superCluster(t testing.TB, config string) (west, east *embedded.Cluster) {
	t.Helper()
	cluster := func(name, gateways string) *embedded.Cluster {
		c, err := embedded.StartCluster(2, embedded.WithName(name), embedded.WithConfig(
			config+fmt.Sprintf("\ngateway { name: %s, port: -1, gateways: [ %s ] }", name, gateways)))
		assert.NoError(t, err)
		t.Cleanup(c.Shutdown)
		return c
	}
	west = cluster("west", "")
	east = cluster("east", fmt.Sprintf(`{ name: west, url: "nats://%s" }`, west.Server(0).NATS().GatewayAddr()))
	assert.Eventually(t, func() bool {
		for _, s := range append(west.Servers(), east.Servers()...) {
			if s.NATS().NumOutboundGateways() < 1 {
				return false
			}
		}
		return true
	}, "gateways")
	return west, east
}

// In a super-cluster calls stay in their cluster while somebody is there, else go to the other one.
func TestSuperCluster(t *testing.T) {
	west, east := superCluster(t, grants(map[string]string{
		"service": bus.Permissions(bus.ServiceRole, "svc"), "client": bus.Permissions(bus.ClientRole, "svc"),
	}))
	client := as(t, west.Server(0), "client", "_RI.cli", content(t))
	far := as(t, east.Server(1), "service", "_RI.svc", content(t))
	near := as(t, west.Server(1), "service", "_RI.svc", content(t))
	call := func(limit time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		ctx, report := endpoint.Observe(ctx)
		_, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
		return report.Instance, err
	}
	timed(t, soon, func() {
		_, err := call(2 * soon)
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	})
	serve(t, far, "svc.add", endpoint.New(add))
	assert.Eventually(t, func() bool { _, err := call(300 * time.Millisecond); return err == nil }, "far")
	for range 20 {
		id, err := call(2 * soon)
		assert.NoError(t, err)
		assert.Equal(t, id, far.ID())
	}
	serve(t, near, "svc.add", endpoint.New(add))
	assert.Eventually(t, func() bool { id, err := call(300 * time.Millisecond); return err == nil && id == near.ID() }, "near")
	for range 20 {
		id, err := call(2 * soon)
		assert.NoError(t, err)
		assert.Equal(t, id, near.ID())
	}
	assert.NoError(t, near.Drain(t.Context()))
	// A call may be under way between the servers of the cluster to the last who left it. The broker loses it.
	assert.Eventually(t, func() bool { id, err := call(300 * time.Millisecond); return err == nil && id == far.ID() }, "over to the other cluster")
	for range 20 {
		id, err := call(2 * soon)
		assert.NoError(t, err)
		assert.Equal(t, id, far.ID())
	}
	assert.NoError(t, far.Drain(t.Context()))
	assert.Eventually(t, func() bool {
		var err error
		timed(t, soon, func() { _, err = call(300 * time.Millisecond) })
		e, ok := errors.AsType[*endpoint.Error](err)
		return ok && e.Reason() == endpoint.ReasonNoResponders
	}, "nobody again")
}
