package bus_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// inSeconds rounds up: less than a second has passed since the deadline was set.
func inSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// remaining answers how many seconds its context has left.
func remaining(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
	d, ok := ctx.Deadline()
	if !ok {
		return nil, endpoint.Internal.New("no deadline")
	}
	return &AddResponse{inSeconds(time.Until(d))}, nil
}

func TestWhichDeadlineCounts(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet(), bus.WithDefaultTimeout(40*time.Second))
	caller := connect(t, s, quiet(), bus.WithDefaultTimeout(20*time.Second))
	serve(t, service, "svc.own", endpoint.New(remaining, endpoint.Timeout(5*time.Second)))
	serve(t, service, "svc.none", endpoint.New(remaining))
	nc := foreign(t, s)
	assert.Equal(t, string(request(t, nc, "svc.own", `{}`).Data), `{"Sum":5}`, "the endpoint's own")
	assert.Equal(t, string(request(t, nc, "svc.none", `{}`).Data), `{"Sum":40}`, "the bus's default")
	assert.Equal(t, string(request(t, nc, "svc.own", `{}`, "Rpc-Timeout", "3S").Data), `{"Sum":3}`, "the smaller")
	assert.Equal(t, string(request(t, nc, "svc.own", `{}`, "Rpc-Timeout", "99S").Data), `{"Sum":5}`, "the smaller")
	assert.Equal(t, string(request(t, nc, "svc.none", `{}`, "Rpc-Timeout", "99S").Data), `{"Sum":99}`, "the caller's")

	left := func(ctx context.Context, opts ...endpoint.Option) int {
		resp, err := adder(caller, "svc.none", opts...)(ctx, &AddRequest{})
		assert.NoError(t, err)
		return resp.Sum
	}
	assert.Equal(t, left(t.Context()), 20, "the default of the caller's bus")
	assert.Equal(t, left(t.Context(), endpoint.Timeout(7*time.Second)), 7, "the caller's option")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	assert.Equal(t, left(ctx), 4, "the context's")
	assert.Equal(t, left(ctx, endpoint.Timeout(7*time.Second)), 4, "the smaller")
}

func TestHandlerInheritsToItsCalls(t *testing.T) {
	service, caller, _ := free(t)
	serve(t, service, "svc.left", endpoint.New(remaining))
	inner := adder(service, "svc.left")
	serve(t, service, "svc.outer", endpoint.New(inner))
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	resp, err := adder(caller, "svc.outer")(ctx, &AddRequest{})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 6)
}

func TestCallEndsByItsDeadline(t *testing.T) {
	service, caller, _ := pair(t)
	entered, causes, left := make(chan struct{}, 2), make(chan error, 2), make(chan struct{})
	leave := sync.OnceFunc(func() { close(left) })
	defer leave()
	serve(t, service, "svc.hang", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		<-left // or its answer might just be in time, and then the outcome is known
		return nil, ctx.Err()
	}))
	hang := adder(caller, "svc.hang")
	timed(t, soon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := hang(ctx, &AddRequest{})
		failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, <-causes, context.DeadlineExceeded, "the handler's context ends, too")
	})
	timed(t, soon, func() {
		ctx, cancel := context.WithCancel(t.Context())
		<-entered
		go func() {
			<-entered
			cancel()
		}()
		_, err := adder(caller, "svc.hang", endpoint.Timeout(time.Second))(ctx, &AddRequest{})
		failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.Canceled)
		<-causes
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := hang(ctx, &AddRequest{})
	failed(t, err, endpoint.Canceled, "", endpoint.NotSent)
	ctx, cancel = context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	_, err = hang(ctx, &AddRequest{})
	failed(t, err, endpoint.DeadlineExceeded, "", endpoint.NotSent)
	leave()
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.hang").Calls == 2 })
	assert.Equal(t, caller.Slots(), 0)
}

// A slot's timer is left as it is between calls: it wakes nobody too early, and whoever is to be woken earlier is.
func TestDeadlinesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		service, caller := n.Connect("service", quiet()), n.Connect("caller", quiet())
		serve(t, service, "svc.echo", rawEndpoint(echo))
		serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(150 * time.Millisecond) // whatever its deadline: an answer then would be there in time as often as not
			return r, nil
		}))
		within := func(d time.Duration, subject string) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			_, err := echoer(caller, subject)(ctx, []byte("x"))
			return err
		}
		assert.NoError(t, within(time.Minute, "svc.echo"))
		start := time.Now()
		failed(t, within(20*time.Millisecond, "svc.slow"), endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		assert.Equal(t, time.Since(start), 20*time.Millisecond, "not after the minute of the one before")
		assert.NoError(t, within(100*time.Millisecond, "svc.echo"))
		assert.NoError(t, within(time.Minute, "svc.slow"), "the timer of the one before goes off meanwhile")
		assert.Equal(t, caller.Table(), 64, "in one slot")
	})
}

// A bus that is closed has no timers of its calls any more, of those that wait then either: they would keep its memory until
// the last of the deadlines.
func TestTimersEndWithTheBus(t *testing.T) {
	s := bustest.Server(t, unheard())
	service, caller := connect(t, s, quiet()), connect(t, s, quiet())
	serve(t, service, "svc.echo", rawEndpoint(echo))
	g := newGate(t)
	serve(t, service, "svc.held", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) { g.pass(); return r, nil }))
	for _, err := range each(100, func(int) error { return <-deadline(t, echoer(caller, "svc.echo"), time.Hour) }) {
		assert.NoError(t, err)
	}
	held := deadline(t, echoer(caller, "svc.held"), time.Hour)
	g.await(t, 1)
	assert.Eventually(t, func() bool { return caller.Timed() > 0 }, "the timers of calls that are over are left as they are")
	assert.NoError(t, caller.Close())
	failed(t, <-held, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
	assert.Equal(t, caller.Slots(), 0)
	assert.Equal(t, caller.Timed(), 0)
}
