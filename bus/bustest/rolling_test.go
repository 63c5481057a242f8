package bustest_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// worker is an endpoint whose handler works some milliseconds, and counts how often it did.
func worker(ran *atomic.Int64, opts ...endpoint.Option) *endpoint.Endpoint {
	return endpoint.New(func(_ context.Context, r []byte) ([]byte, error) {
		ran.Add(1)
		time.Sleep(rand.N(5 * time.Millisecond)) // the work
		return r, nil
	}, append(opts, endpoint.Codec(codec.Raw))...)
}

// cluster starts servers that end with the test.
func cluster(t *testing.T, n int) *embedded.Cluster {
	t.Helper()
	c, err := embedded.StartCluster(n)
	assert.NoError(t, err)
	t.Cleanup(c.Shutdown)
	return c
}

// everywhere returns callers at all servers, one that retries and, where it need not wait for the service, a bare one.
func everywhere(t *testing.T, servers []*embedded.Server, subject string, p middleware.RetryPolicy, opts ...endpoint.Option) (all []endpoint.Unary[[]byte, []byte]) {
	t.Helper()
	retry := middleware.Retry(p)
	for _, s := range servers {
		b := dial(t, s.URL())
		all = append(all, raw(b, subject, append(opts, endpoint.With(retry))...))
		if !p.WaitForService {
			all = append(all, raw(b, subject, opts...))
		}
	}
	return all
}

// Row 7: ten instances are restarted one after the other, again and again, while calls go on at a steady rate from all servers
// of a cluster. None fails, and each is executed once.
func TestRow07RollingRestart(t *testing.T) {
	instances, rounds, calls := 10, 1, 10_000
	if full() {
		rounds, calls = 10, 100_000
	}
	c := cluster(t, 3)
	var ran atomic.Int64
	members := make([]*bus.Bus, instances)
	start := func(i int) (err error) {
		members[i] = dial(t, c.Server(i%3).URL())
		return members[i].Serve("svc.work", worker(&ran))
	}
	for i := range members {
		assert.NoError(t, start(i))
	}
	l := &load{callers: everywhere(t, c.Servers(), "svc.work", middleware.RetryPolicy{}), rate: pace(), limit: 10 * time.Second}
	pause := time.Duration(calls) * time.Second / time.Duration(l.rate*rounds*instances)
	made := l.run(t, calls, func() error {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := range rounds * instances {
			<-tick.C
			l.duringf("restart %d, instance %d drains", i, i%instances)
			if err := members[i%instances].Drain(context.Background()); err != nil {
				return err
			}
			l.duringf("restart %d, instance %d starts", i, i%instances)
			if err := start(i % instances); err != nil {
				return err
			}
			l.duringf("restart %d, instance %d serves again", i, i%instances)
		}
		return nil
	})
	l.none(t)
	l.report(t, rounds*instances)
	assert.Equal(t, int(ran.Load()), made, "each is executed once")
}

// sole restarts the one instance of a service again and again, while callers wait for it. It returns how often it ran, too.
func sole(t *testing.T, servers []*embedded.Server, restarts int, opts ...endpoint.Option) (l *load, runs int) {
	t.Helper()
	var ran atomic.Int64
	var member *bus.Bus
	start := func(i int) (err error) {
		member = dial(t, servers[i%len(servers)].URL())
		return member.Serve("svc.work", worker(&ran, opts...))
	}
	assert.NoError(t, start(0))
	l = &load{callers: everywhere(t, servers, "svc.work", middleware.RetryPolicy{WaitForService: true}, opts...), rate: pace(), limit: 3 * time.Second}
	l.run(t, 0, func() error {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for i := range restarts {
			<-tick.C
			l.duringf("restart %d, drains", i)
			if err := member.Drain(context.Background()); err != nil {
				return err
			}
			l.duringf("restart %d, starts", i)
			if err := start(i + 1); err != nil {
				return err
			}
			l.duringf("restart %d, serves again", i)
		}
		<-tick.C
		return nil
	})
	l.report(t, restarts)
	return l, int(ran.Load())
}

func restarts() int {
	if full() {
		return 100
	}
	return 10
}

// Row 7: a sole instance that is restarted is waited for.
func TestRow07SoleInstance(t *testing.T) {
	l, runs := sole(t, []*embedded.Server{bustest.Server(t)}, restarts())
	l.none(t)
	assert.Equal(t, runs, len(l.ended), "each is executed once")
}

// Row 7: in a cluster of several servers, a call may be under way to the instance's server when that has forgotten the
// instance, and the caller's server has not. Nobody says that it found no one. Whoever may try again, does.
func TestRow07SoleInstanceInACluster(t *testing.T) {
	l, _ := sole(t, cluster(t, 3).Servers(), restarts(), endpoint.Idempotent())
	l.none(t)
}

// Row 7: whoever may not, learns by its deadline what is true, and no more.
func TestRow07LostBetweenServers(t *testing.T) {
	l, runs := sole(t, cluster(t, 3).Servers(), restarts())
	for _, r := range l.failures() {
		assert.ErrorIs(t, r.err, endpoint.DeadlineExceeded, r.String())
		assert.Equal(t, endpoint.OutcomeOf(r.err), endpoint.MaybeExecuted, r.String())
	}
	assert.True(t, len(l.failures()) <= len(l.ended)/20, "they are few")
	assert.Equal(t, runs, len(l.ended)-len(l.failures()), "what succeeds is executed once, what fails is not")
}

// foundBy calls an instance until it is known to all callers' servers: one that finds it knows of its queue group, too.
func foundBy(callers []endpoint.Unary[[]byte, []byte], id string, again <-chan time.Time) (err error) {
	ctx, cancel := context.WithTimeout(endpoint.WithInstance(context.Background(), id), 10*time.Second)
	defer cancel()
	for _, call := range callers {
		for _, err = call(ctx, nil); err != nil && ctx.Err() == nil; _, err = call(ctx, nil) {
			<-again
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Row 7: an instance that leaves when its successor is known loses nothing, nor does it make anybody wait.
func TestRow07Successor(t *testing.T) {
	servers := cluster(t, 3).Servers()
	var ran atomic.Int64
	start := func(i int) (*bus.Bus, error) {
		b := dial(t, servers[i%len(servers)].URL())
		err := b.Serve("svc.work", worker(&ran))
		return b, err
	}
	member, err := start(0)
	assert.NoError(t, err)
	l := &load{callers: everywhere(t, servers, "svc.work", middleware.RetryPolicy{}), rate: pace(), limit: 3 * time.Second}
	assert.Eventually(t, func() bool {
		for _, call := range l.callers {
			if _, err := call(t.Context(), nil); err != nil {
				return false
			}
		}
		return true
	}, "known everywhere")
	ran.Store(0)
	asked := 0 // beside the load
	made := l.run(t, 0, func() error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range restarts() {
			l.duringf("restart %d, two serve", i)
			next, err := start(i + 1)
			if err != nil {
				return err
			}
			if err := foundBy(l.callers, next.ID(), tick.C); err != nil {
				return err
			}
			asked += len(l.callers)
			l.duringf("restart %d, one drains", i)
			if err := member.Drain(context.Background()); err != nil {
				return err
			}
			member = next
		}
		return nil
	})
	l.none(t)
	l.report(t, restarts())
	assert.Equal(t, int(ran.Load()), made+asked, "each is executed once")
}

// slow is an endpoint whose handler takes its time.
func slow(d time.Duration) *endpoint.Endpoint {
	return endpoint.New(func(_ context.Context, r []byte) ([]byte, error) {
		time.Sleep(d)
		return r, nil
	}, endpoint.Codec(codec.Raw))
}
