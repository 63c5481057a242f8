package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// inbox listens for everything that is sent to a caller of the test's own making.
func inbox(t testing.TB, nc *nats.Conn) (prefix string, next func() *nats.Msg) {
	t.Helper()
	prefix = nc.NewInbox() + "."
	sub, err := nc.SubscribeSync(prefix + "*")
	assert.NoError(t, err)
	return prefix, func() *nats.Msg {
		t.Helper()
		m, err := sub.NextMsg(10 * time.Second)
		assert.NoError(t, err)
		return m
	}
}

// until serves a handler that says what ended its context, or that it was let go.
func until(t testing.TB, b *bus.Bus, subject string, opts ...endpoint.Option) (g *gate, causes chan error) {
	t.Helper()
	g, causes = newGate(t), make(chan error, 100_000)
	serve(t, b, subject, rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		g.entered <- struct{}{}
		select {
		case <-g.opened:
			return r, nil
		case <-ctx.Done():
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		}
	}, opts...))
	return g, causes
}

func TestSlowCallsAreAcked(t *testing.T) {
	service, _, s := pair(t)
	g, _ := until(t, service, "svc.slow", endpoint.Concurrency(1))
	nc := foreign(t, s)
	prefix, next := inbox(t, nc)
	for _, token := range []string{"abcdefghijk1~a1~mr~d10S", "abcdefghijk2~mr~a1", "abcdefghijk3~mr~d10S", "foreign"} { // one runs, three wait, two asked
		assert.NoError(t, nc.PublishRequest("svc.slow", prefix+token, nil))
	}
	seen := map[string]bool{}
	for range 2 {
		m := next()
		id, ok := wire.ReadAck(wire.Headers(m.Header), m.Data)
		assert.True(t, ok, "an ack", m.Subject, string(m.Data), fmt.Sprint(m.Header))
		assert.Equal(t, id, service.ID())
		c, ok := wire.ParseControl("_RPC", m.Reply)
		assert.True(t, ok && c.Service == "svc" && c.Instance == id && len(c.Call) == 11, m.Reply)
		assert.True(t, strings.Contains(m.Subject, "~a1") && !seen[m.Subject] && !seen[c.Call], m.Subject)
		seen[m.Subject], seen[c.Call] = true, true
	}
	assert.Equal(t, service.Acked(), 2)
	g.open()
	for range 4 {
		m := next()
		assert.Equal(t, m.Header.Get("Rpc-Ack")+m.Reply, "", "the replies follow")
	}
	assert.Eventually(t, func() bool { return service.Acked() == 0 })
}

func TestQuickCallsAreNotAcked(t *testing.T) {
	service, caller, s := pair(t)
	serve(t, service, "svc.echo", rawEndpoint(echo))
	var acks atomic.Int32
	respond(t, foreign(t, s), "_INBOX.>", func(m *nats.Msg) {
		if m.Header.Get("Rpc-Ack") != "" {
			acks.Add(1)
		}
	})
	call := echoer(caller, "svc.echo")
	slow := int32(0)
	for range 2000 {
		start := time.Now()
		_, err := call(t.Context(), nil)
		assert.NoError(t, err)
		if time.Since(start) > 8*time.Millisecond { // a busy machine
			slow++
		}
	}
	assert.True(t, acks.Load() <= slow, "none for a quick call")
	assert.Eventually(t, func() bool { return service.Acked()+caller.Watched() == 0 })
}

func TestAckTellsTheInstance(t *testing.T) {
	service, caller, _ := pair(t)
	_, causes := until(t, service, "svc.slow")
	ctx, report := endpoint.Observe(t.Context())
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := echoer(caller, "svc.slow")(ctx, nil)
	assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
	assert.Equal(t, report.Instance, service.ID())
	assert.ErrorIs(t, <-causes, context.DeadlineExceeded)
	assert.Equal(t, caller.Watched(), 0)
}

// cancels counts the frames that ask to cancel, and how many calls they are about.
func cancels(t testing.TB, s *embedded.Server) (frames, calls *atomic.Int32) {
	t.Helper()
	frames, calls = &atomic.Int32{}, &atomic.Int32{}
	respond(t, foreign(t, s), "_RPC.>", func(m *nats.Msg) {
		if m.Header.Get("Rpc-Ctl") == "cancel" {
			frames.Add(1)
			calls.Add(1)
			for range wire.Calls(m.Data) {
				calls.Add(1)
			}
		}
	})
	return frames, calls
}

func TestCancelReachesTheHandler(t *testing.T) {
	service, caller, s := pair(t)
	g, causes := until(t, service, "svc.slow")
	frames, _ := cancels(t, s)
	call := echoer(caller, "svc.slow")
	for name, when := range map[string]func(){
		"before the ack": func() {},
		"after the ack":  func() { assert.Eventually(t, func() bool { return caller.Watched() == 1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			before := frames.Load()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := call(ctx, nil)
				done <- err
			}()
			g.await(t, 1)
			when()
			cancel()
			failed(t, <-done, endpoint.Canceled, "", endpoint.MaybeExecuted)
			timed(t, soon, func() {
				cause := <-causes
				assert.ErrorIs(t, cause, endpoint.Canceled)
				_, ok := errors.AsType[*endpoint.Error](cause)
				assert.True(t, ok, "says why")
			})
			assert.Eventually(t, func() bool { return caller.Slots()+service.Acked()+caller.Tombs() == 0 })
			assert.Eventually(t, func() bool { return frames.Load() == before+1 })
		})
	}
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").InFlight == 0 })
}

// Who waits and is canceled never runs.
func TestCancelWhileWaiting(t *testing.T) {
	service, caller, _ := pair(t)
	g, causes := until(t, service, "svc.slow", endpoint.Concurrency(1), endpoint.Backlog(10, time.Minute))
	call := echoer(caller, "svc.slow")
	first := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), nil)
		first <- err
	}()
	g.await(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := call(ctx, nil)
		second <- err
	}()
	assert.Eventually(t, func() bool { return service.Acked() == 2 && caller.Watched() == 2 })
	cancel()
	failed(t, <-second, endpoint.Canceled, "", endpoint.MaybeExecuted)
	assert.Eventually(t, func() bool { return service.Canceled() == 1 })
	g.open()
	assert.NoError(t, <-first)
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").Calls == 2 && service.Acked() == 0 })
	assert.Equal(t, len(g.entered), 0, "the second did not run")
	assert.Equal(t, len(causes), 0)
}

func TestDeadlinesSendNothing(t *testing.T) {
	service, caller, s := pair(t)
	_, causes := until(t, service, "svc.slow")
	frames, _ := cancels(t, s)
	call := echoer(caller, "svc.slow")
	each(20, func(int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := call(ctx, nil) // the service's verdict may be the quicker one
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		return nil
	})
	for range 20 {
		assert.ErrorIs(t, <-causes, context.DeadlineExceeded)
	}
	assert.Eventually(t, func() bool { return service.Acked() == 0 })
	assert.Equal(t, frames.Load(), int32(0))
	assert.Eventually(t, func() bool { return caller.Slots() == 0 })
}

// 50,000 cancels, a tenth of them unless the run is full, cost 1,000 messages at most, and leak nothing.
func TestManyCancels(t *testing.T) {
	calls := scaled(5000, 50_000)
	service, caller, s := pair(t)
	g, causes := until(t, service, "svc.slow", endpoint.Concurrency(calls), endpoint.Backlog(calls, time.Minute))
	frames, named := cancels(t, s)
	call := echoer(caller, "svc.slow")
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // which is not to pass
	done := make(chan error, calls)
	for range calls {
		go func() {
			_, err := call(ctx, nil)
			done <- err
		}()
	}
	for range calls { // not by await: a call that fails would never be there
		select {
		case <-g.entered:
		case err := <-done:
			t.Fatal(err)
		}
	}
	left := time.Now()
	cancel()
	for range calls {
		failed(t, <-done, endpoint.Canceled, "", endpoint.MaybeExecuted)
	}
	for range calls {
		assert.ErrorIs(t, <-causes, endpoint.Canceled)
	}
	assert.Eventually(t, func() bool {
		return caller.Slots() == 0 && service.Acked() == 0 && caller.Tombs() == 0 && caller.Watched() == 0
	})
	assert.Eventually(t, func() bool { return int(named.Load()) == calls })
	took := time.Since(left)
	t.Logf("%d cancels in %d messages, within %v", named.Load(), frames.Load(), took)
	most := max(calls/50, 2+int(took/(10*time.Millisecond))+calls/wire.MaxCalls) // where they take long to leave, one each 10 ms, and those that are full
	assert.True(t, int(frames.Load()) <= most, "few messages")
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+150 }, "goroutines end, but for the parked ones")
	assert.Eventually(t, func() bool { st := statsOf(t, service, "svc.slow"); return st.InFlight+st.Waiting == 0 })
}

// A cancel is at the handler within 50 ms of itself, or of the ack if that is the later, 99 times of 100. The ack is out 10 ms
// after the request was received, or later.
func TestCancelIsPrompt(t *testing.T) {
	calls := scaled(300, 5000)
	service, caller, _ := pair(t)
	began, ended := make([]time.Time, calls), make(chan [2]time.Duration, calls) // the index, and since when
	base := time.Now()
	entered := make(chan int, calls)
	serve(t, service, "svc.slow", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		began[r.A] = time.Now()
		entered <- r.A
		<-ctx.Done()
		ended <- [2]time.Duration{time.Duration(r.A), time.Since(base)}
		return nil, ctx.Err()
	}))
	call := adder(caller, "svc.slow")
	canceled := make([]time.Time, calls)
	var wg sync.WaitGroup
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for i := range calls {
		<-pace.C
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := call(ctx, &AddRequest{A: i})
			assert.ErrorIs(t, err, endpoint.Canceled)
		})
		assert.Equal(t, <-entered, i)
		wg.Go(func() { // before, about, and after the ack
			<-time.After(time.Duration(i%30) * time.Millisecond)
			canceled[i] = time.Now()
			cancel()
		})
	}
	wg.Wait()
	var late []time.Duration
	for range calls {
		e := <-ended
		i := int(e[0])
		since := canceled[i]
		if acked := began[i].Add(10 * time.Millisecond); acked.After(since) {
			since = acked
		}
		late = append(late, base.Add(e[1]).Sub(since))
	}
	p99 := quantile(late, 99)
	t.Logf("%d cancels at their handlers after %v, p99 %v, at most %v (full: %v)", calls, quantile(late, 50), p99, quantile(late, 100), full())
	assert.True(t, p99 < soon, p99.String())
	assert.Eventually(t, func() bool { return caller.Slots()+service.Acked()+caller.Tombs() == 0 })
}

// A tombstone goes when its deadline has passed, whoever is silent.
func TestTombsDecay(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	tokens := make(chan string, 100)
	respond(t, nc, "svc.silent", func(m *nats.Msg) { tokens <- m.Reply })
	call := echoer(caller, "svc.silent")
	each(100, func(int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		time.AfterFunc(5*time.Millisecond, cancel)
		_, err := call(ctx, nil)
		failed(t, err, endpoint.Canceled, "", endpoint.OutcomeOf(err))
		return nil
	})
	assert.True(t, caller.Tombs() > 0, "they wait for an ack")
	late := own(caller).Late
	assert.NoError(t, nc.Publish(<-tokens, []byte("late")))
	assert.Eventually(t, func() bool { return own(caller).Late == late+1 }, "a late reply")
	assert.Eventually(t, func() bool { return caller.Tombs() == 0 && caller.Slots() == 0 })
}

// Where a reply was denied once, because an ack was in its place, there are no acks any more.
func TestDeniedRepliesSwitchAcksOff(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "service", Password: "p", Publish: embedded.Permission{Deny: []string{">"}}, Replies: 1},
		embedded.User{Name: "caller", Password: "p"},
	))
	var log text
	service := connect(t, s, bus.WithNATS(nats.UserInfo("service", "p")), bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	caller := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("caller", "p")))
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		<-time.After(60 * time.Millisecond)
		return r, nil
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := echoer(caller, "svc.slow")(ctx, nil)
	failed(t, err, endpoint.Unavailable, endpoint.ReasonReplyLost, endpoint.MaybeExecuted) // the ack ate the reply
	for range 5 {
		_, err = echoer(caller, "svc.slow")(t.Context(), nil)
		assert.NoError(t, err)
	}
	log.has(t, "no acks any more", "allow_responses")
}
