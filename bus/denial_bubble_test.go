package bus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// miserly starts a net whose user u may publish to svc.add alone.
func miserly(t *testing.T) *bustest.Net {
	t.Helper()
	return bustest.NewNet(t, embedded.WithConfig(`authorization { users: [
		{ user: u, password: p, permissions { publish: ["svc.add"] } }
	] }`))
}

// each way of the link takes so long.
func ways(l *bustest.Link, d time.Duration) {
	l.Up.Latency(d)
	l.Down.Latency(d)
}

// It takes a round trip to be denied, and on an adopted connection until the next look.
func TestRow09InOneRoundTrip(t *testing.T) {
	if eager() {
		t.Skip("it counts the round trips of a call that goes alone")
	}
	synctest.Test(t, func(t *testing.T) {
		n := miserly(t)
		b := n.Connect("owned", quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
		nc := n.Dial("adopted", nats.UserInfo("u", "p"))
		adopted, err := bus.New(nc, quiet())
		assert.NoError(t, err)
		for _, way := range []time.Duration{0, 5 * time.Millisecond, 250 * time.Millisecond} {
			for _, name := range []string{"owned", "adopted"} {
				ways(n.Link(name), way)
			}
			takes(t, 2*way, func() {
				_, err := echoer(b, "svc.secret")(t.Context(), nil)
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
			})
			start := time.Now()
			_, err := echoer(adopted, "svc.secret")(t.Context(), nil)
			failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
			took := time.Since(start)
			assert.True(t, took >= 2*way && took <= max(4*way, 10*time.Millisecond), took.String())
		}
		assert.NoError(t, adopted.Close())
	})
}

// By the deadline of a call on an adopted connection a complaint is looked for that came after the last look.
func TestRow09AdoptedByTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := miserly(t)
		b, err := bus.New(n.Dial("adopted", nats.UserInfo("u", "p")), quiet())
		assert.NoError(t, err)
		ways(n.Link("adopted"), 12*time.Millisecond) // and looks are after 10, 20 and 40 ms
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			takes(t, 30*time.Millisecond, func() {
				_, err := echoer(b, "svc.secret")(ctx, nil)
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
			})
			cancel()
		}
		assert.NoError(t, b.Close())
	})
}

// A call whose caller left is not waited for any more when the broker says that nobody has it.
func TestRow09Left(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := miserly(t)
		b := n.Connect("caller", quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
		ways(n.Link("caller"), 50*time.Millisecond)
		ctx, cancel := context.WithCancel(patient(t))
		time.AfterFunc(10*time.Millisecond, cancel)
		_, err := echoer(b, "svc.secret")(ctx, nil)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, b.Tombs(), 1)
		time.Sleep(100 * time.Millisecond)
		assert.Equal(t, b.Tombs(), 0)
		assert.Equal(t, b.Slots(), 0)
		assert.Equal(t, own(b).Denied, uint64(1))
	})
}

// A call that nobody was heard of for long was not denied: the broker would have said so.
func TestRow09LongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t, embedded.WithConfig(fickleUsers(1)))
		peer := n.Dial("peer", nats.UserInfo("any", "any"))
		b := n.Connect("caller", quiet(), bus.WithNATS(nats.UserInfo("fickle", "fickle")), bus.WithInboxPrefix("_RI.cli"))
		granter(t, b, peer, "svc.slow")()
		first, request := under(t, b, peer, "svc.slow")
		for _, outcome := range []endpoint.Outcome{endpoint.MaybeExecuted, endpoint.NotExecuted} {
			_, err := echoer(b, "svc.slow")(t.Context(), nil)
			failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, outcome)
			time.Sleep(11 * time.Second)
		}
		assert.NoError(t, request.Respond(nil))
		assert.NoError(t, <-first)
	})
}

// What the broker complained of on a connection says nothing about a call that was sent by way of the next one, however soon.
func TestRow09TheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		peer := n.Dial("peer")
		b := n.Connect("caller", quiet(), bus.WithNATS(nats.CustomReconnectDelay(func(int) time.Duration { return 0 })))
		first, _ := under(t, b, peer, "svc.slow")
		second := deadline(t, echoer(b, "svc.slow"), time.Minute)
		synctest.Wait()
		b.Heard(fmt.Errorf(`%w: Permissions Violation for Publish to "svc.slow"`, nats.ErrPermissionViolation)) // of one of both
		n.Link("caller").Cut()
		for _, done := range []chan error{first, second} {
			failed(t, <-done, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
		}
		synctest.Wait()
		third, request := under(t, b, peer, "svc.slow")
		time.Sleep(10 * time.Millisecond)
		assert.NoError(t, request.Respond(nil))
		assert.NoError(t, <-third)
	})
}
