package bus_test

import (
	"context"
	"errors"
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

func TestStopAndServeAgain(t *testing.T) {
	service, caller, _ := pair(t)
	sum := adder(caller, "svc.add")
	before := service.Conn().NumSubscriptions()
	for range 20 {
		serve(t, service, "svc.add", endpoint.New(add))
		_, err := sum(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		timed(t, soon, func() { assert.NoError(t, service.Stop(t.Context(), "svc.add")) })
		_, err = sum(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		found, err := caller.Discover(t.Context(), "svc")
		assert.NoError(t, err)
		assert.Equal(t, len(found), 0)
	}
	assert.Equal(t, service.Conn().NumSubscriptions(), before)
	assert.ErrorIs(t, service.Stop(t.Context(), "svc.add"), endpoint.NotFound)
	assert.Equal(t, len(service.Stats()), 1)
}

func TestStopKeepsTheOthers(t *testing.T) {
	service, caller, _ := free(t)
	type Math struct {
		Add, Sub endpoint.Unary[*AddRequest, *AddResponse]
	}
	serve(t, service, "math", endpoint.Service(Math{Add: add, Sub: add}))
	serve(t, service, "math.extra", endpoint.New(add))
	assert.NoError(t, service.Stop(t.Context(), "math"))
	_, err := adder(caller, "math.extra")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	for _, subject := range []string{"math.add", "math.sub"} {
		_, err = adder(caller, subject)(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	}
	found, err := caller.Discover(t.Context(), "math")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1)
	assert.Equal(t, len(found[0].Endpoints), 1)
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}, endpoint.Concurrency(2), endpoint.Backlog(1000, 30*time.Second)))
	call := echoer(caller, "svc.slow")
	errs := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := call(context.Background(), []byte("x"))
			errs <- err
		}()
	}
	g.await(t, 2)
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").Waiting == 8 })
	drained := make(chan error, 2)
	for range 2 {
		go func() { drained <- service.Drain(context.Background()) }()
	}
	assert.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := call(ctx, []byte("late"))
		e, ok := errors.AsType[*endpoint.Error](err)
		return ok && e.Reason() == endpoint.ReasonNoResponders
	}, "it left the queue group")
	_, err := caller.Conn().Request("$SRV.PING.svc", nil, 10*time.Second)
	assert.ErrorIs(t, err, nats.ErrNoResponders, "it ceased to be found")
	assert.ErrorIs(t, service.Ready(t.Context()), endpoint.Unavailable)
	assert.ErrorIs(t, service.Serve("svc.add", endpoint.New(add)), endpoint.Unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, service.Drain(ctx), context.DeadlineExceeded, "who waits for a drain has a context of his own")
	select {
	case err := <-drained:
		t.Fatalf("drained before the handlers ended: %v", err)
	default:
	}
	g.open()
	for range 10 {
		assert.NoError(t, <-errs, "what was taken is answered")
	}
	assert.NoError(t, <-drained)
	assert.NoError(t, <-drained)
	assert.NoError(t, service.Drain(ctx), "idempotent")
	assert.NoError(t, service.Close())
	assert.True(t, service.Conn().IsClosed(), "an owned connection is closed")
	assert.ErrorIs(t, service.Serve("svc.add", endpoint.New(add)), endpoint.Unavailable)
	timed(t, soon, func() {
		_, err := adder(service, "svc.add")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
		_, err = service.Discover(t.Context(), "")
		failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
	})
}

func TestDrainUnderLoadLosesNothing(t *testing.T) {
	s := bustest.Server(t, unheard())
	handler := endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		if r.A%10 == 0 {
			time.Sleep(time.Millisecond)
		}
		return add(ctx, r)
	})
	stays, caller := connect(t, s, quiet()), connect(t, s, quiet())
	serve(t, stays, "svc.add", handler)
	sum := adder(caller, "svc.add")
	var calls atomic.Int32
	stop := make(chan struct{})
	results := make(chan error, 16)
	for range 16 {
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					results <- nil
					return
				default:
				}
				if _, err := sum(context.Background(), &AddRequest{i, 1}); err != nil {
					results <- err
					return
				}
				calls.Add(1)
			}
		}()
	}
	for range 5 {
		goes := connect(t, s, quiet())
		serve(t, goes, "svc.add", handler)
		assert.Eventually(t, func() bool { return statsOf(t, goes, "svc.add").Calls > 20 })
		timed(t, soon, func() { assert.NoError(t, goes.Drain(context.Background())) })
	}
	close(stop)
	for range 16 {
		assert.NoError(t, <-results)
	}
	t.Logf("%d calls, none failed", calls.Load())
}

func TestDrainCancelsAtItsDeadline(t *testing.T) {
	service, caller, _ := pair(t)
	entered, causes := make(chan struct{}, 1), make(chan error, 1)
	serve(t, service, "svc.wait", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	}))
	errs := make(chan error, 1)
	go func() {
		_, err := adder(caller, "svc.wait")(context.Background(), &AddRequest{})
		errs <- err
	}()
	<-entered
	timed(t, soon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		assert.NoError(t, service.Drain(ctx), "it ended when it was told to")
		assert.Contains(t, (<-causes).Error(), "shutting down")
		failed(t, <-errs, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.Executed)
	})
}

func TestDrainNamesWhatDoesNotEnd(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.stubborn", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}, endpoint.Concurrency(3)))
	serve(t, service, "svc.add", endpoint.New(add))
	errs := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := echoer(caller, "svc.stubborn")(context.Background(), nil)
			errs <- err
		}()
	}
	g.await(t, 3)
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.stubborn").Waiting == 2 })
	timed(t, soon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := service.Stop(ctx, "svc.stubborn")
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		assert.Contains(t, err.Error(), "svc.stubborn (3)")
		assert.True(t, !strings.Contains(err.Error(), "svc.add"), "only what does not end")
		for range 2 { // what waited is told so
			failed(t, <-errs, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.NotExecuted)
		}
	})
	g.open()
	for range 3 {
		assert.NoError(t, <-errs, "a late answer is an answer")
	}
}

// Drain waits for what a Stop still finishes, or it would close the connection under its replies.
func TestDrainWaitsForStop(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}))
	reply, stopped, drained := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := echoer(caller, "svc.slow")(context.Background(), nil)
		reply <- err
	}()
	g.await(t, 1)
	go func() { stopped <- service.Stop(context.Background(), "svc.slow") }()
	assert.Eventually(t, func() bool { return len(service.Stats()) == 1 })
	go func() { drained <- service.Drain(context.Background()) }()
	assert.Eventually(t, func() bool { return service.Ready(t.Context()) != nil })
	time.AfterFunc(50*time.Millisecond, g.open)
	assert.NoError(t, <-reply)
	assert.NoError(t, <-stopped)
	assert.NoError(t, <-drained)
}

func TestCloseIsQuick(t *testing.T) {
	_, caller, s := pair(t)
	service, err := reach(s)
	assert.NoError(t, err)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}))
	go func() { _, _ = echoer(caller, "svc.slow")(t.Context(), nil) }()
	g.await(t, 1)
	drained := make(chan error, 1)
	go func() { drained <- service.Drain(context.Background()) }()
	assert.Eventually(t, func() bool { return service.Ready(t.Context()) != nil })
	timed(t, soon, func() { // also when a drain goes on that has half a minute left
		assert.ErrorIs(t, service.Close(), endpoint.DeadlineExceeded)
		assert.ErrorIs(t, <-drained, endpoint.DeadlineExceeded)
	})
	g.open()
}

// A handler that outlives the bus leaves its caller no time to wait out.
func TestCallersOfWhatDoesNotEndAreAnswered(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	for name, connect := range map[string]func() (*bus.Bus, error){
		"owned":   func() (*bus.Bus, error) { return reach(s) },
		"adopted": func() (*bus.Bus, error) { return bus.New(foreign(t, s), quiet()) },
		"stopped": func() (*bus.Bus, error) { return reach(s) },
	} {
		t.Run(name, func(t *testing.T) {
			b, err := connect()
			assert.NoError(t, err)
			stopped := name == "stopped"
			g := newGate(t)
			returned := make(chan struct{}, 3)
			serve(t, b, "svc.stubborn", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
				defer func() { returned <- struct{}{} }()
				g.pass()
				if string(r) == "1" {
					return nil, endpoint.NotFound.New("late")
				}
				return r, nil
			}))
			errs := make(chan error, 3)
			for i := range 3 {
				go func() {
					_, err := echoer(caller, "svc.stubborn")(context.Background(), fmt.Append(nil, i))
					errs <- err
				}()
			}
			g.await(t, 3)
			late := own(caller).Late
			timed(t, soon, func() {
				over, cancel := context.WithCancel(t.Context())
				cancel()
				if stopped {
					assert.ErrorIs(t, b.Stop(over, "svc.stubborn"), endpoint.DeadlineExceeded)
				}
				assert.ErrorIs(t, b.Close(), endpoint.DeadlineExceeded)
				for range 3 {
					failed(t, <-errs, endpoint.Unavailable, endpoint.ReasonDraining, endpoint.Executed)
				}
			})
			g.open()
			for range 3 {
				<-returned
			}
			if !stopped {
				assert.Eventually(t, func() bool { return statsOf(t, b, "svc.stubborn").Calls == 3 })
			}
			if !b.Conn().IsClosed() {
				assert.NoError(t, b.Conn().Flush())
			}
			assert.NoError(t, caller.Conn().Flush())
			assert.Equal(t, own(caller).Late, late, "what they say now goes nowhere")
		})
	}
}

func TestCloseEndsCallsInFlight(t *testing.T) {
	service, caller, _ := pair(t)
	g := newGate(t)
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		g.pass()
		return r, nil
	}))
	errs := make(chan error, 1)
	go func() {
		_, err := echoer(caller, "svc.slow")(context.Background(), nil)
		errs <- err
	}()
	g.await(t, 1)
	timed(t, soon, func() {
		assert.NoError(t, caller.Close())
		failed(t, <-errs, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
	})
	g.open()
}

// hammer calls the subject from eight goroutines while f runs. Each call ends well or with a refusal: one that times out was
// dropped in silence.
func hammer(t *testing.T, caller *bus.Bus, subject string, f func()) {
	t.Helper()
	stop := make(chan struct{})
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			call := adder(caller, subject)
			for {
				select {
				case <-stop:
					errs <- nil
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				_, err := call(ctx, &AddRequest{1, 2})
				cancel()
				if err != nil && !errors.Is(err, endpoint.Unavailable) {
					errs <- err
					return
				}
			}
		}()
	}
	f()
	close(stop)
	for range 8 {
		assert.NoError(t, <-errs)
	}
}

func TestEndsUnderLoadDropNothing(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, end := range map[string]func(b *bus.Bus) error{
		"close":             (*bus.Bus).Close,
		"drain out of time": func(b *bus.Bus) error { _ = b.Drain(over); return b.Close() },
		"stop out of time":  func(b *bus.Bus) error { return errors.Join(b.Stop(over, "svc.add"), b.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				b, err := reach(s)
				assert.NoError(t, err)
				serve(t, b, "svc.add", endpoint.New(add))
				hammer(t, caller, "svc.add", func() {
					assert.Eventually(t, func() bool { return statsOf(t, b, "svc.add").Calls > 20 })
					assert.NoError(t, end(b))
				})
			}
		})
	}
}

// What Serve takes back, because a part of it is denied, has been reachable for a moment.
func TestServeTakenBackDropsNothing(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "u", Password: "p", Subscribe: embedded.Permission{Deny: []string{"svc.denied"}}},
		embedded.User{Name: "any", Password: "p"},
	))
	b := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
	caller := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("any", "p")))
	type Contract struct {
		Add, Denied endpoint.Unary[*AddRequest, *AddResponse]
	}
	hammer(t, caller, "svc.add", func() {
		for range 30 {
			assert.ErrorIs(t, b.Serve("svc", endpoint.Service(Contract{Add: add, Denied: add})), endpoint.PermissionDenied)
		}
	})
	assert.Equal(t, len(b.Stats()), 1)
}

// A connection that is closed for good, by whomever, ends the calls that wait on it.
func TestClosedConnectionEndsCallsInFlight(t *testing.T) {
	s := bustest.Server(t, unheard())
	asked := make(chan struct{}, 4)
	respond(t, foreign(t, s), "svc.mute", func(*nats.Msg) { asked <- struct{}{} })
	owned, err := reach(s)
	assert.NoError(t, err)
	adopted, err := bus.New(foreign(t, s), quiet())
	assert.NoError(t, err)
	for _, b := range []*bus.Bus{owned, adopted} {
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := adder(b, "svc.mute")(context.Background(), &AddRequest{})
				errs <- err
			}()
		}
		<-asked
		<-asked
		b.Conn().Close()
		timed(t, soon, func() {
			for range 2 {
				failed(t, <-errs, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
			}
			assert.NoError(t, b.Close())
		})
		assert.Equal(t, b.Slots(), 0)
	}
}

func TestEndOnALostConnection(t *testing.T) {
	for name, end := range map[string]func(b *bus.Bus) error{
		"close": (*bus.Bus).Close,
		"drain": func(b *bus.Bus) error { return b.Drain(context.Background()) },
		"stop":  func(b *bus.Bus) error { return errors.Join(b.Stop(context.Background(), "svc.add"), b.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := bustest.Server(t)
			b, err := bus.Connect(s.URL(), quiet())
			assert.NoError(t, err)
			serve(t, b, "svc.add", endpoint.New(add))
			s.Shutdown()
			assert.Eventually(t, func() bool { return !b.Conn().IsConnected() })
			timed(t, soon, func() { assert.NoError(t, end(b)) })
		})
	}
}

func TestAdoptedConnectionStays(t *testing.T) {
	s := bustest.Server(t, unheard())
	nc := foreign(t, s)
	respond(t, nc, "mine.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	before := nc.NumSubscriptions()
	b, err := bus.New(nc, quiet())
	assert.NoError(t, err)
	serve(t, b, "svc.add", endpoint.New(add))
	_, err = adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.NoError(t, b.Drain(t.Context()))
	assert.True(t, nc.IsConnected(), "open")
	assert.Equal(t, nc.NumSubscriptions(), before)
	m, err := nc.Request("mine.echo", []byte("x"), 10*time.Second)
	assert.NoError(t, err)
	assert.Equal(t, string(m.Data), "x")
	_, err = adder(b, "mine.echo")(t.Context(), &AddRequest{1, 2})
	e := failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
	assert.Equal(t, e.Message, "the bus is closed", "the connection is not")
	_, err = b.Discover(t.Context(), "")
	failed(t, err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.NotSent)
}
