package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// Streams where there is more than one server between their ends.

// crosses runs streams of all kinds, with more items than there is credit for, and one that is left.
func crosses(t *testing.T, service, caller *bus.Bus, causes <-chan cause) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sums, err := collect(counter(caller, "svc.count")(ctx, &AddRequest{A: 1000}))
	assert.NoError(t, err)
	assert.Equal(t, sums, upTo(1000, 1))
	got, err := totaler(caller, "svc.total")(ctx, numbers(1000))
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 500_500)
	sums, err = collect(doubler(caller, "svc.double")(ctx, numbers(1000)))
	assert.NoError(t, err)
	assert.Equal(t, sums, upTo(1000, 2))
	for v, err := range counter(caller, "svc.endless")(ctx, &AddRequest{}) {
		assert.NoError(t, err)
		if v.Sum == 200 {
			break
		}
	}
	timed(t, soon, func() { assert.ErrorIs(t, (<-causes).err, endpoint.Canceled) })
	nothingLeft(t, service, caller)
}

// crossed serves what crosses calls, and waits until its callers know.
func crossed(t *testing.T, service, caller *bus.Bus) <-chan cause {
	t.Helper()
	causes := make(chan cause, 100)
	serveStreams(t, service)
	serve(t, service, "svc.endless", endpoint.NewServerStream(endless(causes)))
	assert.Eventually(t, func() bool {
		for range counter(caller, "svc.endless")(t.Context(), &AddRequest{}) {
			break
		}
		return len(causes) > 0
	}, "the caller's server knows of it")
	nothingLeft(t, service, caller)
	for len(causes) > 0 {
		<-causes
	}
	return causes
}

func TestStreamsThroughARestrictedLeafNode(t *testing.T) {
	t.Run("of callers", func(t *testing.T) {
		hub, edge := leaf(t, bus.Permissions(bus.ClientRole, "svc"))
		service, caller := connect(t, hub, quiet()), connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.cli"))
		crosses(t, service, caller, crossed(t, service, caller))
	})
	t.Run("of services", func(t *testing.T) {
		hub, edge := leaf(t, behindALeafNode(t))
		service, caller := connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.svc")), connect(t, hub, quiet(), bus.WithInboxPrefix("_RI.cli"))
		crosses(t, service, caller, crossed(t, service, caller))
	})
}

func TestStreamsAcrossClusters(t *testing.T) {
	west, east := superCluster(t, grants(map[string]string{
		"service": bus.Permissions(bus.ServiceRole, "svc"), "client": bus.Permissions(bus.ClientRole, "svc"),
	}))
	service, caller := as(t, east.Server(1), "service", "_RI.svc", content(t)), as(t, west.Server(0), "client", "_RI.cli", content(t))
	crosses(t, service, caller, crossed(t, service, caller))
}

// Behind a leaf node that may not publish to instances nobody hears a probe, and the broker says so. A stream that needs no word
// of its caller's goes on all the same.
func TestStreamBehindALeafNodeThatIsNotHeard(t *testing.T) {
	hub, edge := leaf(t, `permissions: { publish: ["svc.>"], subscribe: ["_RI.cli.>"] }`)
	caller := connect(t, edge, quiet(), bus.WithInboxPrefix("_RI.cli"))
	service, _ := mortal(t, hub)
	g := newGate(t)
	serve(t, service, "svc.slow", endpoint.NewServerStream(func(context.Context, *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			if yield(&AddResponse{1}, nil) {
				g.pass()
				yield(&AddResponse{2}, nil)
			}
		}
	}))
	done := make(chan error, 1)
	assert.Eventually(t, func() bool {
		_, err := collect(counter(caller, "svc.slow", endpoint.Timeout(20*time.Millisecond))(t.Context(), &AddRequest{}))
		return endpoint.CodeOf(err) == endpoint.DeadlineExceeded
	}, "the caller's server knows of it")
	go func() {
		sums, err := collect(counter(caller, "svc.slow")(context.Background(), &AddRequest{}))
		if err == nil && len(sums) != 2 {
			err = fmt.Errorf("%v", sums)
		}
		done <- err
	}()
	assert.Eventually(t, func() bool { return caller.Watched() == 1 && caller.Asked() >= 3 })
	_, err := caller.Conn().Request("_RPC.svc."+service.ID()+".c.x", nil, 10*time.Second)
	assert.ErrorIs(t, err, nats.ErrNoResponders)
	assert.Equal(t, caller.Living(), 0)
	assert.Equal(t, len(done), 0, "the stream lives")
	g.open()
	assert.NoError(t, <-done)
}

// An instance at another server dies: the callers of its streams know as soon as those of the same server.
func TestStreamInstanceKilledElsewhere(t *testing.T) {
	c, err := embedded.StartCluster(3)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	caller := connect(t, c.Server(0), quiet())
	service, die := mortal(t, c.Server(2))
	causes := make(chan cause, 100)
	serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
	done := make(chan error, 1)
	assert.Eventually(t, func() bool {
		_, err := collect(counter(caller, "svc.tail", endpoint.Timeout(20*time.Millisecond))(t.Context(), &AddRequest{A: 1}))
		return endpoint.CodeOf(err) == endpoint.DeadlineExceeded
	}, "the caller's server knows of it")
	go func() {
		_, err := collect(counter(caller, "svc.tail")(context.Background(), &AddRequest{A: 1}))
		done <- err
	}()
	assert.Eventually(t, func() bool { return caller.Watched() == 1 && caller.Living() == 1 })
	died := time.Now()
	die()
	failed(t, <-done, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
	t.Logf("a dead instance was noticed within %v", time.Since(died))
	assert.True(t, time.Since(died) < soon, time.Since(died).String())
}
