package bus_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// who is a service that says who it is.
func who(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
	return nil, endpoint.NotFound.New(endpoint.FromContext(ctx).Instance())
}

// asked returns which instance a direct call met.
func asked(t testing.TB, caller *bus.Bus, subject, id string) string {
	t.Helper()
	_, err := adder(caller, subject)(endpoint.WithInstance(t.Context(), id), &AddRequest{})
	return failed(t, err, endpoint.NotFound, "", endpoint.Executed).Message
}

func TestDirectCallsMeetTheirInstance(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	services := each(3, func(int) *bus.Bus {
		b := connect(t, s, quiet())
		serve(t, b, "svc.who", endpoint.New(who))
		return b
	})
	for range 10 {
		for _, b := range services {
			assert.Equal(t, asked(t, caller, "svc.who", b.ID()), b.ID())
			assert.Equal(t, asked(t, b, "svc.who", services[0].ID()), services[0].ID(), "an instance may call another, or itself")
		}
	}
	// The group gets none of it, and an empty id takes the direction back.
	assert.Eventually(t, func() bool {
		var total uint64
		for _, b := range services {
			total += statsOf(t, b, "svc.who").Calls
		}
		return total == 60
	})
	ctx := endpoint.WithInstance(endpoint.WithInstance(t.Context(), "nobody"), "")
	_, err := adder(caller, "svc.who")(ctx, &AddRequest{})
	failed(t, err, endpoint.NotFound, "", endpoint.Executed)
}

func TestDirectCallsAreAdmittedAsOthers(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}, endpoint.Concurrency(1), endpoint.Backlog(0, time.Second)))
	call, direct := echoer(caller, "svc.slow"), endpoint.WithInstance(t.Context(), service.ID())
	first := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), nil)
		first <- err
	}()
	g.await(t, 1)
	timed(t, soon, func() {
		_, err := call(direct, nil)
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonBacklogFull, endpoint.NotExecuted)
	})
	g.open()
	assert.NoError(t, <-first)
	assert.Eventually(t, func() bool { // the place is free a moment after the answer
		_, err := call(direct, nil)
		return err == nil
	})
}

func TestDirectCallsToWhatIsNotThere(t *testing.T) {
	service, caller, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	other := connect(t, s, quiet())
	serve(t, other, "svc.add", endpoint.New(add))
	sum := adder(caller, "svc.add")
	found, err := caller.Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 2)
	assert.NoError(t, other.Close())
	for range 3 { // known, unknown, unknown and asked for in vain a moment ago
		timed(t, soon, func() {
			_, err := sum(endpoint.WithInstance(t.Context(), other.ID()), &AddRequest{1, 2})
			e := failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
			assert.Contains(t, e.Message, other.ID())
		})
	}
	_, err = adder(caller, "svc.sub")(endpoint.WithInstance(t.Context(), service.ID()), &AddRequest{1, 2})
	e := failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	assert.True(t, e.Remote(), "the instance says so")
	assert.NoError(t, service.Stop(t.Context(), "svc.add"))
	_, err = sum(endpoint.WithInstance(t.Context(), service.ID()), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	serve(t, service, "svc.add", endpoint.New(add))
	var resp *AddResponse
	resp, err = sum(endpoint.WithInstance(t.Context(), service.ID()), &AddRequest{1, 2})
	assert.NoError(t, err, "served again")
	assert.Equal(t, resp.Sum, 3)
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.add").Calls == 1 }, "once")
	for _, id := range []string{"a.b", "*", ">", "a b", strings.Repeat("x", 65), "é", "\r\nPUB x 0\r\n"} {
		_, err := sum(endpoint.WithInstance(t.Context(), id), &AddRequest{1, 2})
		failed(t, err, endpoint.InvalidArgument, "", endpoint.NotSent)
	}
}

// With a name of its own, an instance is found by asking once; without, by the subject.
func TestDirectCallsToNamedServices(t *testing.T) {
	if os.Getenv(framesEnv) == "off" {
		t.Skip("it looks for the feature")
	}
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	named := connect(t, s, quiet(), bus.WithName("calculator"))
	serve(t, named, "svc.who", endpoint.New(who))
	several := connect(t, s, quiet())
	serve(t, several, "svc.who", endpoint.New(who))
	serve(t, several, "more.who", endpoint.New(who))
	var pings atomic.Int32
	respond(t, foreign(t, s), "$SRV.PING", func(*nats.Msg) { pings.Add(1) })
	for range 3 {
		assert.Equal(t, asked(t, caller, "svc.who", named.ID()), named.ID())
		assert.Equal(t, asked(t, caller, "svc.who", several.ID()), several.ID())
		assert.Equal(t, asked(t, caller, "more.who", several.ID()), several.ID())
	}
	assert.Eventually(t, func() bool { return pings.Load() == 1 })
	found, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 3)
	for _, i := range found {
		assert.Equal(t, i.Endpoints[0].Metadata["rpc.features"], "ack,direct,frames")
		assert.Equal(t, asked(t, caller, i.Endpoints[0].Subject, i.ID), i.ID)
	}
	assert.Equal(t, pings.Load(), int32(1))
}

// Without the grant for its root an instance serves, and says once what it can't do.
func TestRootDenied(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "service", Password: "p", Subscribe: embedded.Permission{Allow: []string{"svc.> q", "_INBOX.>", "$SRV.>"}}},
		embedded.User{Name: "caller", Password: "p"},
	))
	var log bytes.Buffer
	service := connect(t, s, bus.WithNATS(nats.UserInfo("service", "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})),
		bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	caller := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("caller", "p")))
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, service, "svc.more", endpoint.New(add))
	assert.Equal(t, strings.Count(log.String(), "denies the instance's subject"), 1)
	assert.NoError(t, service.Ready(t.Context()))
	_, err := adder(caller, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	_, err = adder(caller, "svc.add")(endpoint.WithInstance(t.Context(), service.ID()), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	found, err := caller.Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1)
	for _, e := range found[0].Endpoints {
		_, there := e.Metadata["rpc.features"]
		assert.True(t, !there && e.Metadata["rpc.v"] == "1", "no features")
	}
}

// Another root is another root.
func TestRootsAreRenamed(t *testing.T) {
	s := bustest.Server(t, unheard())
	renamed := bus.WithRoots("_MY", "$SRV")
	service, caller, stranger := connect(t, s, quiet(), renamed), connect(t, s, quiet(), renamed), connect(t, s, quiet())
	serve(t, service, "svc.who", endpoint.New(who))
	assert.Equal(t, asked(t, caller, "svc.who", service.ID()), service.ID())
	_, err := adder(stranger, "svc.who")(endpoint.WithInstance(t.Context(), service.ID()), &AddRequest{})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
}
