package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The tests in this file run in bubbles of virtual time, over simulated links: what they say of time is exact.

// far returns a service and a caller, each at the end of a link of its own.
func far(t *testing.T, opts ...bus.Option) (n *bustest.Net, service, caller *bus.Bus) {
	t.Helper()
	n = bustest.NewNet(t)
	opts = append([]bus.Option{quiet()}, opts...)
	service, caller = n.Connect("service", opts...), n.Connect("caller", opts...)
	return n, service, caller
}

// latency gives each way of both links 5 ms: a call takes 20.
func latency(n *bustest.Net) {
	for _, name := range []string{"service", "caller"} {
		n.Link(name).Up.Latency(5 * time.Millisecond)
		n.Link(name).Down.Latency(5 * time.Millisecond)
	}
}

// takes runs f and wants it to take exactly so long.
func takes(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	assert.Equal(t, time.Since(start).String(), want.String())
}

func TestRow01InOneRoundTrip(t *testing.T) {
	if eager() {
		t.Skip("it counts the round trips of a call that goes alone")
	}
	synctest.Test(t, func(t *testing.T) {
		n, _, caller := far(t)
		latency(n)
		takes(t, 10*time.Millisecond, func() {
			_, err := echoer(caller, "svc.nobody")(t.Context(), nil)
			failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		})
	})
}

func TestRow05DisconnectedTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		var ghosts atomic.Int32
		serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			if string(r) == "ghost" {
				ghosts.Add(1)
			}
			return r, nil
		}))
		call := echoer(caller, "svc.echo")
		n.Server.Shutdown()
		synctest.Wait()
		for range 200 { // all through the outage, also while the connection is tried again
			takes(t, 0, func() {
				_, err := call(t.Context(), []byte("ghost"))
				failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
			})
			time.Sleep(50 * time.Millisecond)
		}
		assert.NoError(t, n.Server.Restart())
		time.Sleep(5 * time.Second) // the longest delay
		_, err := call(t.Context(), []byte("after"))
		assert.NoError(t, err)
		assert.Equal(t, ghosts.Load(), int32(0))
	})
}

// A request that arrives after its caller left is refused by its send time, once more than the clocks' skew has passed.
func TestRow25FrozenPath(t *testing.T) {
	const deadline, skew = time.Second, 2 * time.Second
	for late, executed := range map[time.Duration]int32{
		deadline - 10*time.Millisecond:        1, // not late at all
		deadline + skew - 10*time.Millisecond: 1, // it may be the clocks: the price of not trusting them
		deadline + skew + 10*time.Millisecond: 0,
		5 * time.Second:                       0,
	} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, service, caller := far(t, bus.WithClockSkew(skew))
				var ran atomic.Int32
				serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
					ran.Add(1)
					return r, nil
				}))
				n.Link("service").Down.Freeze()
				time.AfterFunc(late, n.Link("service").Down.Thaw)
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				takes(t, min(late, deadline), func() {
					_, err := echoer(caller, "svc.echo")(ctx, nil)
					if late < deadline {
						assert.NoError(t, err)
						return
					}
					failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
				})
				time.Sleep(10 * time.Second)
				assert.Equal(t, ran.Load(), executed)
				assert.Equal(t, statsOf(t, service, "svc.echo").Expired, uint64(1-executed))
			})
		})
	}
}

// A service that was stopped, as by SIGSTOP, and goes on: what its caller does not wait for any more is not run.
func TestRow25FrozenCallerSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		var ran atomic.Int32
		serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			ran.Add(1)
			return r, nil
		}))
		n.Link("caller").Up.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		errs := each(50, func(int) error {
			_, err := echoer(caller, "svc.echo")(ctx, nil)
			return err
		})
		for _, err := range errs {
			failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		}
		time.Sleep(2100 * time.Millisecond)
		n.Link("caller").Up.Thaw()
		time.Sleep(time.Second)
		assert.Equal(t, ran.Load(), int32(0))
		assert.Equal(t, statsOf(t, service, "svc.echo").Expired, uint64(50))
		assert.Equal(t, own(caller).Late, uint64(50)) // the refusals found nobody
	})
}

func TestDeadlinesAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		latency(n)
		ended := make(chan time.Time, 100)
		serve(t, service, "svc.slow", rawEndpoint(func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- time.Now()
			return nil, ctx.Err()
		}))
		call := echoer(caller, "svc.slow")
		first, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		_, err := call(first, nil) // from here on it is known that they block
		failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		<-ended
		start := time.Now()
		each(100, func(i int) error {
			limit := time.Duration(15+7*i) * time.Millisecond
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			_, err := call(ctx, nil)
			assert.Equal(t, time.Since(start).String(), limit.String())
			failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
			return nil
		})
		for i := range 100 { // the service counts from receipt, 10 ms later
			limit := time.Duration(15+7*i) * time.Millisecond
			assert.Equal(t, (<-ended).Sub(start).Round(time.Microsecond).String(), (limit + 10*time.Millisecond).String())
		}
	})
}

// The peer is gone without a word: the pings find out within six seconds, and when it is there again calls go on within one.
func TestHalfOpenLinkIsNoticed(t *testing.T) {
	for name, spoil := range map[string]func(l *bustest.Link){
		"nothing goes up":     func(l *bustest.Link) { l.Up.Hole() },
		"nothing comes down":  func(l *bustest.Link) { l.Down.Hole() },
		"frozen in both ways": func(l *bustest.Link) { l.Up.Freeze(); l.Down.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			for _, phase := range []time.Duration{0, 700 * time.Millisecond, 1999 * time.Millisecond} {
				synctest.Test(t, func(t *testing.T) {
					n, service, caller := far(t)
					serve(t, service, "svc.echo", rawEndpoint(echo))
					lost := caller.Conn().StatusChanged(nats.RECONNECTING)
					time.Sleep(phase)
					start := time.Now()
					spoil(n.Link("caller"))
					<-lost
					assert.True(t, time.Since(start) <= 6*time.Second, time.Since(start).String())
					takes(t, 0, func() {
						_, err := echoer(caller, "svc.echo")(t.Context(), nil)
						failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
					})
					time.Sleep(10 * time.Second)
					n.Link("caller").Mend()
					time.Sleep(time.Second)
					_, err := echoer(caller, "svc.echo")(t.Context(), nil)
					assert.NoError(t, err)
				})
			}
		})
	}
}

// A service that leaves while calls are on the way to it, and their replies on the way back, fails none of them.
func TestDrainOverSlowLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old, caller := far(t)
		next := n.Connect("next", quiet())
		for _, name := range []string{"service", "caller", "next"} {
			n.Link(name).Up.Latency(40 * time.Millisecond)
			n.Link(name).Down.Latency(40 * time.Millisecond)
		}
		work := rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
			time.Sleep(200 * time.Millisecond)
			return r, nil
		})
		serve(t, old, "svc.work", work)
		serve(t, next, "svc.work", work)
		call := echoer(caller, "svc.work")
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				_, err := call(t.Context(), nil)
				assert.NoError(t, err)
			})
		}
		time.Sleep(500 * time.Millisecond)
		start := time.Now()
		assert.NoError(t, old.Drain(t.Context()))
		assert.True(t, time.Since(start) < time.Second, time.Since(start).String())
		wg.Wait()
	})
}

// No outage makes a request run later than its deadline and the clocks' skew allow, and no outcome is a lie.
func TestNoGhostsInAnyOutage(t *testing.T) {
	outages := uint64(100)
	if full() {
		outages = 1000
	}
	for seed := range outages {
		synctest.Test(t, func(t *testing.T) { outage(t, rand.New(rand.NewPCG(seed, 6)), seed) })
	}
}

// execution is when a call was run, and how often.
type execution struct {
	first time.Time
	times int
}

func outage(t *testing.T, r *rand.Rand, seed uint64) {
	t.Helper()
	const skew = 100 * time.Millisecond
	n, service, caller := far(t, bus.WithClockSkew(skew))
	latency(n)
	var mu sync.Mutex
	ran := map[string]*execution{}
	serve(t, service, "svc.pay", rawEndpoint(func(_ context.Context, b []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if ran[string(b)] == nil {
			ran[string(b)] = &execution{first: time.Now()}
		}
		ran[string(b)].times++
		return b, nil
	}))
	call := echoer(caller, "svc.pay")
	over := make(chan struct{})
	go func() {
		defer close(over)
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		strike(t, n, r)
	}()
	var wg sync.WaitGroup
	for i := 0; ; i++ {
		wg.Go(func() {
			pay(t, call, fmt.Sprintf("seed %d, call %d", seed, i), time.Duration(50+i%20*100)*time.Millisecond, skew, &mu, ran)
		})
		select {
		case <-over:
			wg.Wait()
			time.Sleep(12 * time.Second) // six for the pings to find out, five for the longest delay
			_, err := call(t.Context(), []byte("healed"))
			assert.NoError(t, err, fmt.Sprint("seed ", seed))
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// strike lets something happen to the net, and ends it.
func strike(t *testing.T, n *bustest.Net, r *rand.Rand) {
	t.Helper()
	l := n.Link([]string{"service", "caller"}[r.IntN(2)])
	way := []*bustest.Way{&l.Up, &l.Down}[r.IntN(2)]
	end := func() {}
	switch r.IntN(5) {
	case 0:
		n.Server.Shutdown()
		end = func() { assert.NoError(t, n.Server.Restart()) }
	case 1:
		way.Freeze()
		end = way.Thaw
	case 2:
		way.Hole()
		end = func() {
			l.Mend()
			l.Cut() // else the broker would hold on to the connection, a queue member that is none, until its own pings find out
		}
	case 3:
		l.Cut()
	case 4: // one after the other
		way.Freeze()
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		l.Cut()
		end = l.Mend
	}
	time.Sleep(time.Duration(r.IntN(8000)) * time.Millisecond)
	end()
}

// pay calls once and holds what happened against what was said.
func pay(t *testing.T, call endpoint.Unary[[]byte, []byte], id string, limit, skew time.Duration, mu *sync.Mutex, ran map[string]*execution) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := call(ctx, []byte(id))
	took := time.Since(start)
	assert.True(t, took <= limit, id, "ends by its deadline, took", took.String())
	time.Sleep(20 * time.Second) // whatever is still to happen
	mu.Lock()
	defer mu.Unlock()
	e := ran[id]
	switch outcome := endpoint.OutcomeOf(err); {
	case err == nil:
		assert.True(t, e != nil && e.times == 1, id, "a success is one execution")
	case outcome == endpoint.NotSent || outcome == endpoint.NotExecuted:
		assert.True(t, e == nil, id, "was executed:", err.Error())
	case outcome == endpoint.Executed:
		assert.True(t, e != nil, id, "was not executed:", err.Error())
	}
	if e != nil {
		assert.Equal(t, e.times, 1, id)
		late := e.first.Sub(start.Add(limit))
		assert.True(t, late <= skew+time.Millisecond, id, "started after its deadline by", late.String())
	}
}

// A thousand clients of a server that restarts come back spread over time.
func TestReconnectsAreSpread(t *testing.T) {
	const clients = 1000
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		var mu sync.Mutex
		back := map[time.Duration]int{} // by tenths of a second
		var start time.Time
		for range clients {
			n.Connect("all", quiet(), bus.WithNATS(nats.ReconnectHandler(func(*nats.Conn) {
				mu.Lock()
				defer mu.Unlock()
				back[time.Since(start).Truncate(100*time.Millisecond)]++
			})))
		}
		start = time.Now()
		assert.NoError(t, n.Server.Restart())
		time.Sleep(30 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		all, most := 0, 0
		for _, k := range back {
			all, most = all+k, max(most, k)
		}
		assert.Equal(t, all, clients)
		t.Logf("%d clients in %d tenths of a second, %d in the busiest", all, len(back), most)
		assert.True(t, most <= clients/10, "the busiest tenth of a second has ten percent at most")
	})
}
