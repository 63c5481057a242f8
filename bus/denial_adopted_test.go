package bus_test

import (
	"context"
	"sync/atomic"
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

// On a connection that was adopted the last error is all there is, and its owner's handlers stay.
func TestRow09Adopted(t *testing.T) {
	s := least(t, nil)
	_, ran := secret(t, s, "svc.secret")
	var theirs atomic.Int32
	nc := foreign(t, s, nats.UserInfo("bridge", "bridge"), nats.CustomInboxPrefix("_RI.http"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { theirs.Add(1) }))
	buses := each(2, func(int) *bus.Bus { // both on one connection
		b, err := bus.New(nc, quiet(), bus.WithInboxPrefix("_RI.http"))
		assert.NoError(t, err)
		return b
	})
	for _, b := range buses {
		timed(t, soon, func() {
			for range 2 {
				_, err := echoer(b, "svc.secret")(patient(t), nil)
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
			}
			for _, err := range each(100, func(int) error {
				_, err := echoer(b, "svc.secret")(patient(t), nil)
				return err
			}) {
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
			}
		})
		assert.Eventually(t, func() bool { // sooner than the first look, if the broker is
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Millisecond)
			defer cancel()
			_, err := echoer(b, "svc.secret")(ctx, nil)
			if endpoint.OutcomeOf(err) == endpoint.NotSent { // not within 9 ms
				return false
			}
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.MaybeExecuted)
			return endpoint.CodeOf(err) == endpoint.PermissionDenied
		})
	}
	assert.Eventually(t, func() bool { return theirs.Load() > 2*102 }, "their handler")
	assert.Equal(t, ran.Load(), int32(0))
	for _, b := range buses {
		assert.NoError(t, b.Close())
	}
}

// A complaint that was there before a call is not about it, nor is one about another subject.
func TestRow09AdoptedOthersGoOn(t *testing.T) {
	s := least(t, nil)
	slow := foreign(t, s, nats.UserInfo("service", "service"))
	nc := foreign(t, s, nats.UserInfo("bridge", "bridge"))
	b, err := bus.New(nc, quiet(), bus.WithInboxPrefix("_RI.http"))
	assert.NoError(t, err)
	requests := make(chan *nats.Msg, 1)
	_, err = slow.QueueSubscribe("svc.add", "q", func(m *nats.Msg) { requests <- m })
	assert.NoError(t, err)
	assert.NoError(t, slow.Flush())
	assert.NoError(t, nc.Publish("svc.secret", nil))
	assert.NoError(t, nc.Flush())
	done := deadline(t, echoer(b, "svc.add"), time.Minute)
	m := <-requests
	assert.NoError(t, nc.Publish("svc.secret", nil))
	assert.NoError(t, nc.Flush())
	for range 3 { // the first looks as often as they do
		_, err := echoer(b, "svc.secret")(patient(t), nil)
		failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	}
	assert.Equal(t, len(done), 0)
	assert.NoError(t, m.Respond(nil))
	assert.NoError(t, <-done)
	assert.NoError(t, b.Close())
}

// A complaint about the same subject that was there before says nothing about a call: it may be granted by now.
func TestRow09AdoptedBefore(t *testing.T) {
	const users = `authorization { users: [ { user: any, password: any }, { user: u, password: p, permissions {
		publish: ["nothing"], allow_responses: { max: 1, expires: "1h" }
	} } ] }`
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t, embedded.WithConfig(users))
		peer, nc := n.Dial("peer", nats.UserInfo("any", "any")), n.Dial("adopted", nats.UserInfo("u", "p"))
		b, err := bus.New(nc, quiet())
		assert.NoError(t, err)
		defer func() { assert.NoError(t, b.Close()) }()
		granted := make(chan bool)
		respond(t, nc, "grant", func(*nats.Msg) { granted <- true })
		respond(t, peer, "svc.slow", func(m *nats.Msg) { time.AfterFunc(time.Minute, func() { _ = m.Respond(nil) }) })
		call := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_, err := echoer(b, "svc.slow")(ctx, nil)
			return err
		}
		for range 2 {
			failed(t, call(), endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
			assert.NoError(t, peer.PublishRequest("grant", "svc.slow", nil))
			<-granted
			takes(t, time.Minute, func() { assert.NoError(t, call()) })
		}
	})
}

// A call on an adopted connection ends even while nobody can ask nats.go for anything.
func TestRow09AdoptedAway(t *testing.T) {
	s := bustest.Server(t)
	peer := foreign(t, s)
	d := &slowDialer{dialing: make(chan struct{}, 100), let: make(chan struct{}, 100)}
	d.let <- struct{}{}
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond), nats.SetCustomDialer(d))
	assert.NoError(t, err)
	defer nc.Close()
	b, err := bus.New(nc, quiet())
	assert.NoError(t, err)
	requests := make(chan *nats.Msg, 1)
	respond(t, peer, "svc.slow", func(m *nats.Msg) { requests <- m })
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := echoer(b, "svc.slow")(ctx, nil)
		done <- err
	}()
	<-requests
	<-d.dialing
	s.Shutdown()
	<-d.dialing // and there it stays, with the lock held
	failed(t, <-done, endpoint.Unavailable, endpoint.ReasonConnectionLost, endpoint.MaybeExecuted)
	assert.True(t, time.Since(start) < 2*time.Second, "at once")
	close(d.let)
	nc.Close()
	_ = b.Close()
}
