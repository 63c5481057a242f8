package bustest_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// However many calls are begun at once, and answered at once: each is executed once and has its own reply, and the connection of
// a process that is busy with them stays, also where something else keeps its processors busy. It may take its time. A full run
// has 100,000 of them.
func TestRush(t *testing.T) {
	calls, rounds := 10_000, 2
	limits := []endpoint.Option{endpoint.Concurrency(calls), endpoint.Backlog(calls, 4*time.Minute)} // beside other work, and the race detector
	if full() {
		calls, rounds = 100_000, 6
		limits = []endpoint.Option{endpoint.Concurrency(calls)}
	}
	s := bustest.Server(t)
	service, caller := bustest.Connect(t, s), bustest.Connect(t, s)
	var executed []atomic.Int32
	land := make(chan struct{})
	hold := endpoint.New(func(_ context.Context, r string) (string, error) {
		var i int
		_, _ = fmt.Sscanf(r, "%d", &i)
		executed[i].Add(1)
		<-land
		return r, nil
	}, limits...)
	assert.NoError(t, service.Serve("svc.hold", hold))
	call := endpoint.Caller[string, string](caller, "svc.hold", endpoint.Codec(codec.JSON))
	for round := range rounds {
		t.Run(fmt.Sprintf("%d busy goroutines", 2*(round%2)), func(t *testing.T) {
			stop := busy(2 * (round % 2))
			defer stop()
			executed = make([]atomic.Int32, calls)
			land = make(chan struct{})
			rush(t, calls, call, func() bool { return service.Stats()[0].InFlight == int64(calls) }, land)
			for i := range executed {
				assert.Equal(t, executed[i].Load(), int32(1))
			}
			assert.Equal(t, caller.Conn().Stats().Reconnects, uint64(0))
			assert.Equal(t, service.Conn().Stats().Reconnects, uint64(0))
		})
	}
}

// rush begins all calls at once, lets them land when all are there, and fails where one fails or has another's reply.
func rush(t *testing.T, calls int, call endpoint.Unary[string, string], there func() bool, land chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	failures := make(chan error, calls)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			want := fmt.Sprint(i, " ", strings.Repeat("x", i%200))
			got, err := call(ctx, want)
			if err == nil && got != want {
				err = fmt.Errorf("the reply to %q is %q", want, got)
			}
			if err != nil {
				failures <- err
			}
		})
	}
	for !there() && len(failures) == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	close(land)
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
		return
	}
}

// busy has n goroutines that never wait, until the function it returns is called.
func busy(n int) (stop func()) {
	var ended atomic.Bool
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for !ended.Load() {
				runtime.KeepAlive(n)
			}
		})
	}
	return func() {
		ended.Store(true)
		wg.Wait()
	}
}
