package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
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

// The tests named TestRow… are the rows of "Every known way to fail" in docs/semantics.md: how the connection, the broker
// and the load let a call fail. Rows about what is in the messages are in catalogue_message_test.go.

func TestRow01NoResponders(t *testing.T) {
	_, caller, _ := pair(t)
	sum := adder(caller, "svc.nobody")
	timed(t, soon, func() {
		_, err := sum(t.Context(), &AddRequest{1, 2})
		e := failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		assert.Contains(t, e.Message, "svc.nobody")
	})
	best := time.Hour
	for range 20 {
		start := time.Now()
		_, _ = sum(t.Context(), &AddRequest{1, 2})
		best = min(best, time.Since(start))
	}
	assert.True(t, best < 10*time.Millisecond, "the best of 20 is within 10 ms: "+best.String())
}

func TestRow02JustSubscribed(t *testing.T) {
	c, err := embedded.StartCluster(3)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	service := connect(t, c.Server(0), quiet())
	callers := []*bus.Bus{connect(t, c.Server(1), quiet()), connect(t, c.Server(2), quiet())}
	misses := 0
	for i := range 30 {
		subject := fmt.Sprintf("svc%d.add", i)
		serve(t, service, subject, endpoint.New(add))
		for _, b := range callers {
			timed(t, soon, func() {
				if resp, err := adder(b, subject)(t.Context(), &AddRequest{i, 1}); err != nil {
					failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
					misses++
				} else {
					assert.Equal(t, resp.Sum, i+1)
				}
			})
		}
		assert.Eventually(t, func() bool {
			_, err := adder(callers[0], subject)(t.Context(), &AddRequest{i, 1})
			return err == nil
		})
	}
	t.Logf("%d of 60 immediate calls met nobody yet", misses)
}

func TestRow03Overflow(t *testing.T) {
	const backlog, calls = 8, 100
	service, caller, _ := pair(t)
	g := newGate(t)
	var ran, running, most atomic.Int32
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		ran.Add(1)
		g.pass()
		return r, nil
	}, endpoint.Concurrency(1), endpoint.Backlog(backlog, 30*time.Second)))
	call := echoer(caller, "svc.slow")
	errs := make(chan error, calls)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range calls {
		go func() {
			_, err := call(ctx, []byte("x"))
			errs <- err
		}()
	}
	g.await(t, 1)
	timed(t, soon, func() {
		for range calls - backlog - 1 {
			e := failed(t, <-errs, endpoint.ResourceExhausted, endpoint.ReasonBacklogFull, endpoint.NotExecuted)
			assert.True(t, e.RetryAfter > 0, "says when to try again")
			assert.True(t, e.Remote(), "said by the service")
		}
	})
	s := statsOf(t, service, "svc.slow")
	assert.Equal(t, s.Waiting, int64(backlog))
	assert.Equal(t, s.InFlight, int64(1))
	assert.Equal(t, s.Refused, uint64(calls-backlog-1))
	assert.Equal(t, s.Dropped, uint64(0))
	g.open()
	for range backlog + 1 {
		assert.NoError(t, <-errs)
	}
	assert.Equal(t, ran.Load(), int32(backlog+1))
	assert.Equal(t, most.Load(), int32(1))
}

func TestRow03BacklogWait(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}, endpoint.Concurrency(1), endpoint.Backlog(10, 30*time.Millisecond)))
	call := echoer(caller, "svc.slow")
	first := make(chan error, 1)
	go func() {
		_, err := call(context.Background(), []byte("first"))
		first <- err
	}()
	g.await(t, 1)
	timed(t, soon, func() {
		_, err := call(t.Context(), []byte("second"))
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonBacklogWait, endpoint.NotExecuted)
	})
	g.open()
	assert.NoError(t, <-first)
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").Calls == 1 })
}

// quickly makes reconnects quick enough for a test.
func quickly() bus.Option {
	return bus.WithNATS(nats.CustomReconnectDelay(func(int) time.Duration { return 5 * time.Millisecond }))
}

func TestRow05Disconnected(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T, s *embedded.Server) *bus.Bus{
		"owned": func(t *testing.T, s *embedded.Server) *bus.Bus {
			t.Helper()
			b, err := bus.Connect(s.URL(), quiet(), quickly())
			assert.NoError(t, err)
			return b
		},
		"owned with a buffer of its own": func(t *testing.T, s *embedded.Server) *bus.Bus {
			t.Helper()
			b, err := bus.Connect(s.URL(), quiet(), quickly(), bus.WithNATS(nats.ReconnectBufSize(8<<20)))
			assert.NoError(t, err)
			return b
		},
		"adopted": func(t *testing.T, s *embedded.Server) *bus.Bus {
			t.Helper()
			nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(5*time.Millisecond))
			assert.NoError(t, err)
			t.Cleanup(nc.Close)
			b, err := bus.New(nc, quiet())
			assert.NoError(t, err)
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := bustest.Server(t)
			service, err := bus.Connect(s.URL(), quiet(), quickly())
			assert.NoError(t, err)
			t.Cleanup(func() { _ = service.Close() })
			caller := connect(t, s)
			t.Cleanup(func() { _ = caller.Close() })
			var ghosts atomic.Int32
			serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
				if string(r) == "ghost" {
					ghosts.Add(1)
				}
				return r, nil
			}))
			call := echoer(caller, "svc.echo")
			_, err = call(t.Context(), []byte("before"))
			assert.NoError(t, err)

			s.Shutdown()
			assert.Eventually(t, func() bool { return !caller.Conn().IsConnected() })
			timed(t, soon, func() {
				for range 100 {
					_, err := call(t.Context(), []byte("ghost"))
					failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
				}
			})
			assert.NoError(t, s.Restart())
			assert.Eventually(t, func() bool {
				_, err := call(t.Context(), []byte("after"))
				return err == nil
			})
			assert.Equal(t, ghosts.Load(), int32(0))
			assert.Equal(t, caller.Slots(), 0)
		})
	}
}

func TestRow10InboxDenied(t *testing.T) {
	s := bustest.Server(t, embedded.WithUsers(
		embedded.User{Name: "u", Password: "p", Subscribe: embedded.Permission{Allow: []string{"_RI.Mine.>"}}},
	))
	user := bus.WithNATS(nats.UserInfo("u", "p"))
	for prefix, opts := range map[string][]bus.Option{
		"_INBOX.":    {quiet(), user},
		"_RI.Other.": {quiet(), user, bus.WithInboxPrefix("_RI.Other")},
	} {
		timed(t, soon, func() {
			b, err := bus.Connect(s.URL(), opts...)
			assert.True(t, b == nil && err != nil, "refused")
			assert.ErrorIs(t, err, nats.ErrPermissionViolation)
			assert.Contains(t, err.Error(), prefix, "WithInboxPrefix")
		})
	}
	b, err := bus.Connect(s.URL(), quiet(), user, bus.WithInboxPrefix("_RI.Mine"))
	assert.NoError(t, err)
	assert.NoError(t, b.Close())
	assert.Eventually(t, func() bool { return s.NATS().NumClients() == 0 }, "no connection is left behind")
}

func TestRow12RequestTooLarge(t *testing.T) {
	service, caller, _ := pair(t, embedded.WithMaxPayload(4096))
	var ran atomic.Int32
	serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		return r, nil
	}))
	call := echoer(caller, "svc.echo")
	timed(t, soon, func() {
		_, err := call(t.Context(), make([]byte, 4097))
		e := failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
		assert.Contains(t, e.Message, "4097", "4096")
		_, err = call(endpoint.WithHeader(t.Context(), "X-Pad", strings.Repeat("x", 500)), make([]byte, 4000))
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
	})
	assert.Equal(t, ran.Load(), int32(0))
	got, err := call(t.Context(), make([]byte, 4096))
	assert.NoError(t, err)
	assert.Equal(t, len(got), 4096)
}

func TestRow12ReplyTooLarge(t *testing.T) {
	service, caller, _ := pair(t, embedded.WithMaxPayload(4096))
	serve(t, service, "svc.big", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		if len(r) > 0 {
			endpoint.FromContext(ctx).Reply.Set("X-Pad", strings.Repeat("x", 500))
			return make([]byte, 4000), nil
		}
		return make([]byte, 4097), nil
	}))
	serve(t, service, "svc.details", rawEndpoint(func(context.Context, []byte) ([]byte, error) {
		return nil, endpoint.NotFound.New(strings.Repeat("m", 3000)).WithReason("lost").
			With(endpoint.Detail{Type: "blob", Value: bytes.Repeat([]byte{1}, 4000)})
	}))
	big := echoer(caller, "svc.big")
	timed(t, soon, func() {
		_, err := big(t.Context(), nil)
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
		_, err = big(t.Context(), []byte("with headers"))
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonReplyTooLarge, endpoint.Executed)
		_, err = echoer(caller, "svc.details")(t.Context(), nil)
		e := failed(t, err, endpoint.NotFound, "lost", endpoint.Executed)
		assert.Equal(t, len(e.Details), 0)
	})
}

func TestRow19BadSubjects(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	var heard atomic.Int32
	respond(t, nc, ">", func(m *nats.Msg) {
		if !strings.HasPrefix(m.Subject, "_INBOX.") && !strings.HasPrefix(m.Subject, "svc.nobody") {
			heard.Add(1)
		}
	})
	before := caller.Conn().Stats().OutMsgs
	for _, subject := range []string{
		strings.Repeat("x", 4096), strings.Repeat("x.", 300) + "x", "", "svc.*", "svc.>", "svc..add", ".svc", "svc.", "svc add",
		"svc.add\r\nPUB evil 0\r\n", "svc\tadd", "$SYS.REQ.SERVER.PING", "_INBOX.x", "_RPC.x", "_R_.x", "svc.~f", "svc.\x00", "svc.\xff",
	} {
		timed(t, soon, func() {
			_, err := adder(caller, subject)(t.Context(), &AddRequest{1, 2})
			assert.ErrorIs(t, err, endpoint.InvalidArgument, subject)
			assert.Equal(t, endpoint.OutcomeOf(err).String(), endpoint.NotSent.String(), subject)
			_, err = caller.Handler(subject, endpoint.New(add).Spec())(t.Context(), nil)
			assert.ErrorIs(t, err, endpoint.InvalidArgument, subject)
			assert.ErrorIs(t, caller.Serve(subject, endpoint.New(add)), endpoint.InvalidArgument, subject)
		})
	}
	assert.Equal(t, caller.Conn().Stats().OutMsgs, before)
	assert.NoError(t, caller.Conn().Flush())
	assert.Equal(t, heard.Load(), int32(0))
	assert.True(t, caller.Conn().IsConnected(), "the connection lives")
}

func TestRow21FailedPublishesLeaveNothing(t *testing.T) {
	_, caller, _ := pair(t, embedded.WithMaxPayload(1024))
	call := echoer(caller, "svc.echo")
	table := caller.Table()
	runtime.GC()
	for range 2000 {
		_, err := call(t.Context(), make([]byte, 2048))
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
	}
	assert.Equal(t, caller.Slots(), 0)
	assert.True(t, caller.Table() <= max(table, 64), "the table does not grow")
}
