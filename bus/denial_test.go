package bus_test

import (
	"context"
	"fmt"
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

// secret serves what no bridge of least may call, and counts.
func secret(t testing.TB, s *embedded.Server, subject string) (b *bus.Bus, ran *atomic.Int32) {
	t.Helper()
	ran = new(atomic.Int32)
	b = as(t, s, "service", "_RI.svc")
	serve(t, b, subject, rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		return r, nil
	}))
	return b, ran
}

func TestRow09PublishDenied(t *testing.T) {
	const odd = `svc.a"b\c'.ü` + "\u200b"
	s := least(t, nil)
	service, ran := secret(t, s, "svc.secret")
	for name, opts := range map[string][]bus.Option{"token": {bus.WithoutFrames()}, "header": {bus.WithHeaderMetadata()}} {
		t.Run(name, func(t *testing.T) {
			b := as(t, s, "bridge", "_RI.http", opts...)
			for _, c := range []struct{ name, subject, instance, to string }{
				{"", "svc.secret", "", "svc.secret"},
				{"direct", "svc.secret", service.ID(), "_RPC.svc." + service.ID() + ".e.svc.secret"},
				{"nobody there", "svc.nobody", "", "svc.nobody"},
				{"odd", odd, "", odd},
				{"long", "svc." + strings.Repeat("ü", 250), "", "svc.üüü"},
			} {
				ctx := endpoint.WithInstance(t.Context(), c.instance)
				timed(t, soon, func() {
					_, err := echoer(b, c.subject)(ctx, nil)
					e := failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
					assert.Contains(t, e.Message, c.to)
					assert.ErrorIs(t, err, nats.ErrPermissionViolation, c.name)
					assert.True(t, !e.Remote(), "no peer's verdict")
				})
			}
			assert.Equal(t, own(b).Denied, uint64(5))
			assert.Equal(t, own(b).Late, uint64(0))
			assert.Equal(t, b.Slots(), 0)
			_, err := echoer(b, "svc.add")(t.Context(), nil)
			failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		})
	}
	assert.Equal(t, ran.Load(), int32(0))
}

func TestRow09ManyAtOnce(t *testing.T) {
	const calls, subjects = 1000, 4
	s := least(t, nil)
	_, ran := secret(t, s, "svc.secret0")
	b := as(t, s, "bridge", "_RI.http", bus.WithoutFrames())
	var call [subjects]endpoint.Unary[[]byte, []byte]
	for i := range call {
		call[i] = echoer(b, fmt.Sprintf("svc.secret%d", i))
	}
	start := time.Now()
	errs := each(calls, func(i int) error {
		_, err := call[i%subjects](t.Context(), nil)
		return err
	})
	took, certain := time.Since(start), 0
	for _, err := range errs {
		assert.ErrorIs(t, err, endpoint.PermissionDenied)
		if endpoint.OutcomeOf(err) == endpoint.NotExecuted {
			certain++
		}
	}
	t.Logf("%d calls denied at once: all within %v, %d of them certainly not executed", calls, took, certain)
	assert.True(t, took < soon, "in time")
	assert.Equal(t, own(b).Denied, uint64(calls))
	assert.Equal(t, ran.Load(), int32(0))
	assert.Equal(t, b.Slots(), 0)
}

// fickle returns a bus that may publish to a subject most times, each time that grant is called, and a peer with all grants.
func fickle(t testing.TB, subject string, most int) (b *bus.Bus, peer *nats.Conn, grant func()) {
	t.Helper()
	s := bustest.Server(t, unheard(), embedded.WithConfig(fickleUsers(most)))
	b, peer = as(t, s, "fickle", "_RI.cli", bus.WithoutFrames()), foreign(t, s, nats.UserInfo("any", "any"))
	return b, peer, granter(t, b, peer, subject)
}

func fickleUsers(most int) string {
	return fmt.Sprintf(`authorization { users: [ { user: any, password: any }, { user: fickle, password: fickle, permissions {
		subscribe: ["_RI.>"], publish: ["granted"], allow_responses: { max: %d, expires: "10h" }
	} } ] }`, most)
}

// granter returns what grants the bus to publish to the subject: the broker takes it for where a reply goes.
func granter(t testing.TB, b *bus.Bus, peer *nats.Conn, subject string) (grant func()) {
	t.Helper()
	inbox := make(chan string, 1)
	respond(t, peer, "granted", func(m *nats.Msg) {
		inbox <- m.Reply[:strings.LastIndexByte(m.Reply, '.')]
		_ = m.Respond(nil)
	})
	_, err := echoer(b, "granted")(t.Context(), nil)
	assert.NoError(t, err)
	to := <-inbox + ".x"
	return func() {
		late := own(b).Late
		assert.NoError(t, peer.PublishRequest(to, subject, nil))
		assert.Eventually(t, func() bool { return own(b).Late > late })
	}
}

// patient is for callers that must not come to their deadline.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Grants change while calls are under way: those that ran say so, and those that say they did not run did not.
func TestRow09GrantsChange(t *testing.T) {
	const calls, most = 400, 150
	for _, workers := range []int{1, 8, calls} {
		b, peer, grant := fickle(t, "svc.some", most)
		ran := make(chan string, calls)
		respond(t, peer, "svc.some", func(m *nats.Msg) {
			ran <- string(m.Data)
			_ = m.Respond(nil)
		})
		grant()
		todo := make(chan int, calls)
		for i := range calls {
			todo <- i
		}
		close(todo)
		errs := make([]error, calls)
		each(workers, func(int) bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for i := range todo {
				_, errs[i] = echoer(b, "svc.some")(ctx, fmt.Append(nil, i))
			}
			return true
		})
		executed := map[string]bool{}
		for range most {
			executed[<-ran] = true
		}
		counts := map[endpoint.Outcome]int{}
		for i, err := range errs {
			outcome := endpoint.OutcomeOf(err)
			counts[outcome]++
			assert.Equal(t, executed[fmt.Sprint(i)] && outcome == endpoint.NotExecuted, false, "truthful")
			if err != nil {
				assert.ErrorIs(t, err, endpoint.PermissionDenied)
			}
		}
		t.Logf("%d workers: %v", workers, counts)
		assert.Equal(t, len(ran), 0)
		assert.Equal(t, counts[endpoint.Executed], most)
		if workers == 1 { // of several, a busy machine may hear too late to be certain
			assert.Equal(t, counts[endpoint.NotExecuted], calls-most)
		}
	}
}

// under starts a call and returns when its request is at the peer, which answers it later.
func under(t *testing.T, b *bus.Bus, peer *nats.Conn, subject string) (done chan error, request *nats.Msg) {
	t.Helper()
	requests := make(chan *nats.Msg, 10)
	respond(t, peer, subject, func(m *nats.Msg) { requests <- m })
	done = deadline(t, echoer(b, subject), time.Minute)
	return done, <-requests
}

// The newest call is the one that was denied: one that is under way goes on.
func TestRow09TheOthersGoOn(t *testing.T) {
	b, peer, grant := fickle(t, "svc.slow", 1)
	grant()
	first, request := under(t, b, peer, "svc.slow")
	for range 3 {
		timed(t, soon, func() {
			_, err := echoer(b, "svc.slow")(patient(t), nil)
			failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
		})
	}
	assert.NoError(t, request.Respond(nil))
	assert.NoError(t, <-first)
	_, err := echoer(b, "svc.slow")(patient(t), nil)
	failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
}

// A call that somebody has, as its ack says, was not denied.
func TestRow09NotTheAcked(t *testing.T) {
	b, peer, grant := fickle(t, "svc.slow", 1)
	grant()
	first, request := under(t, b, peer, "svc.slow")
	assert.NoError(t, peer.PublishMsg(&nats.Msg{Subject: request.Reply, Reply: below("x"), Header: nats.Header{"Rpc-Ack": {"i1"}}}))
	assert.Eventually(t, func() bool { return own(b).Denied == 1 }) // the first probe
	_, err := echoer(b, "svc.slow")(patient(t), nil)
	failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
	assert.NoError(t, request.Respond(nil))
	assert.NoError(t, <-first)
}

// What was denied may be what others than the bus published, who share the connection.
func TestRow09NotOurs(t *testing.T) {
	b, peer, grant := fickle(t, "svc.slow", 1)
	grant()
	done, request := under(t, b, peer, "svc.slow")
	assert.NoError(t, b.Conn().Publish("svc.slow", nil))
	failed(t, <-done, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	assert.NoError(t, request.Respond(nil))
	assert.Eventually(t, func() bool { return own(b).Late == 2 })
	_, err := echoer(b, "svc.slow")(patient(t), nil)
	failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	_, err = echoer(b, "granted")(patient(t), nil)
	assert.NoError(t, err)
}

// What was denied may be a call that ended before the broker said so.
func TestRow09Ended(t *testing.T) {
	for _, canceled := range []bool{false, true} {
		b, peer, grant := fickle(t, "svc.slow", 1)
		requests := make(chan *nats.Msg, 1)
		respond(t, peer, "svc.slow", func(m *nats.Msg) { requests <- m })
		grant()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // it is to be sent within
		if canceled {
			ctx, cancel = context.WithCancel(t.Context())
		}
		done := make(chan error, 1)
		go func() {
			_, err := echoer(b, "svc.slow")(ctx, nil)
			done <- err
		}()
		<-requests
		if canceled {
			cancel()
		}
		assert.True(t, <-done != nil)
		_, err := echoer(b, "svc.slow")(patient(t), nil)
		failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
		cancel()
	}
}

// Whoever logs the errors of our connection, the bus hears them.
func TestRow09OwnErrorHandler(t *testing.T) {
	s := least(t, nil)
	var theirs atomic.Int32
	for name, h := range map[string]nats.ErrHandler{"none": nil, "one": func(*nats.Conn, *nats.Subscription, error) { theirs.Add(1) }} {
		b := as(t, s, "bridge", "_RI.http", bus.WithNATS(nats.ErrorHandler(h)), bus.WithoutFrames())
		timed(t, soon, func() {
			_, err := echoer(b, "svc.secret")(patient(t), nil)
			failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
		})
		assert.NoError(t, b.Ready(t.Context()), name)
	}
	assert.Eventually(t, func() bool { return theirs.Load() == 1 })
}
