package bus_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// quantile returns what so many of a hundred are below of; it sorts.
func quantile(all []time.Duration, percent float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(float64(len(all))*percent/100), len(all)-1)]
}

// A stranger does all at once, a thousand times a second, while others call. Their calls take as long as ever, in phases with
// the stranger and without that take turns. Only what costs whoever receives it, headers by the hundred thousand, is left out:
// who may send them in an account is the broker's business.
func TestTrafficBesideAStranger(t *testing.T) {
	s := bustest.Server(t)
	connect := func(prefix string) *bus.Bus { return overTCP(t, s, bus.WithInboxPrefix(prefix)) }
	service, caller := connect("_RI.svc"), connect("_RI.cli")
	serve(t, service, "svc.add", endpoint.New(add))
	stranger := cast(t, "stranger", s.URL())
	assert.Equal(t, stranger.ask(service.ID()), "ready")
	sum := adder(caller, "svc.add")
	add := func(i int) error {
		_, err := sum(t.Context(), &AddRequest{i, 1})
		return err
	}
	var ratios, p99s []float64 // of each round, which lets a busy machine be busy in both of its halves
	var sent string
	for range scaled(8, 40) {
		calm := quantile(steady(t, 250*time.Millisecond, add), 99)
		stranger.ask("go")
		siege := quantile(steady(t, 250*time.Millisecond, add), 99)
		sent = stranger.ask("stop")
		ratios, p99s = append(ratios, float64(siege)/float64(calm)), append(p99s, float64(siege))
	}
	slices.Sort(ratios)
	slices.Sort(p99s)
	ratio, p99 := ratios[len(ratios)/2], time.Duration(p99s[len(p99s)/2])
	t.Logf("medians of %d rounds: p99 %v, %+.0f %% beside %s (full: %v)", len(ratios), p99, 100*(ratio-1), sent, full())
	assert.True(t, !full() || ratio < 3, "a machine that does nothing else")
	assert.True(t, own(service).Malformed > 0, "counted")
	assert.Equal(t, own(caller).Malformed+own(caller).Late, uint64(0), "nothing of it came to the others")
}

// playStranger is the stranger in a process of its own, with a caller that it harasses: the first line names the instance.
func playStranger(t *testing.T, url string) func(string) string {
	t.Helper()
	nc, err := nats.Connect(url, nats.CustomInboxPrefix("_RI.foreign"))
	assert.NoError(t, err)
	t.Cleanup(nc.Close)
	victim, err := bus.Connect(url, quiet(), bus.WithInboxPrefix("_RI.victim"))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = victim.Close() })
	pace := time.NewTicker(time.Millisecond)
	t.Cleanup(pace.Stop)
	var x *stranger
	var end func()
	return func(line string) string {
		switch line {
		case "go":
			end = x.rage(t.Context())
		case "stop":
			end()
			return fmt.Sprintf("%d messages of the stranger, %d malformed and %d late ones at who it answers",
				nc.Stats().OutMsgs, own(victim).Malformed, own(victim).Late)
		default:
			x = intrude(t, nc, line, victim)
			x.pace = pace.C
		}
		return "ready"
	}
}

// overTCP connects a bus over a socket.
func overTCP(t testing.TB, s *embedded.Server, opts ...bus.Option) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(s.URL(), append([]bus.Option{quiet()}, opts...)...)
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// steady calls some 1,500 times a second for so long, and returns how long each call took.
func steady(t testing.TB, d time.Duration, call func(i int) error) []time.Duration {
	t.Helper()
	end := time.Now().Add(d)
	return slices.Concat(each(3, func(i int) (took []time.Duration) {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			start := time.Now()
			if start.After(end) {
				return took
			}
			if err := call(i); err != nil {
				t.Error(err)
			}
			took = append(took, time.Since(start))
		}
		return took
	})...)
}

// costly are bombs, and what needs a connection for each message.
var costly = []string{"bomb", "bombs", "garbage", "garbled", "version"}

// rage does all that the stranger knows, over and over at its pace, until it is ended.
func (x *stranger) rage(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	loop := func(names []string, strike func(name string)) func() {
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(costly, name) })
		slices.Sort(names)
		return func() {
			for i := rand.IntN(len(names)); ctx.Err() == nil; i++ { // a round is too short for all
				strike(names[i%len(names)])
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(loop(slices.Collect(maps.Keys(requests)), func(name string) { requests[name](x) }))
	wg.Go(loop(slices.Collect(maps.Keys(replies)), func(name string) { _, _ = x.call(ctx, []byte(name)) }))
	return func() {
		cancel()
		wg.Wait()
	}
}
