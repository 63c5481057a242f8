package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// The tests in this file run in bubbles, too: what probes find out, and when.

// distance gives each way of the links so much latency.
func distance(n *bustest.Net, d time.Duration, links ...string) {
	for _, name := range links {
		n.Link(name).Up.Latency(d)
		n.Link(name).Down.Latency(d)
	}
}

// kill is what a dead process looks like: its connections break, and no others come.
func kill(n *bustest.Net, link string) {
	n.Link(link).Up.Freeze()
	n.Link(link).Cut()
}

// found is how long a death may go unnoticed: until the next probe is due, then until the one after it comes back.
const found = 250 * time.Millisecond

// ended is how a call ended, and how long it took.
type ended struct {
	instance string
	err      error
	took     time.Duration
}

// started calls, and returns at once.
func started(call endpoint.Unary[[]byte, []byte], limit time.Duration) chan ended {
	out := make(chan ended, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		ctx, report := endpoint.Observe(ctx)
		start := time.Now()
		_, err := call(ctx, nil)
		out <- ended{report.Instance, err, time.Since(start)}
	}()
	return out
}

// Whenever an instance dies that answered a probe, the calls that it acked end a fraction of a second later. If it dies sooner,
// they end by their deadline, and the outcome is true all the same.
func TestRow06KilledAtAnyMoment(t *testing.T) {
	const limit = time.Second
	for _, lag := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		known := 8*lag + 10*time.Millisecond // request, 10 ms, ack, probe, beat
		t.Run(lag.String(), func(t *testing.T) {
			for when := time.Millisecond / 2; when < known+200*time.Millisecond; when += 5 * time.Millisecond {
				synctest.Test(t, func(t *testing.T) {
					n, service, caller := far(t)
					g, _ := until(t, service, "svc.slow")
					distance(n, lag, "service", "caller")
					time.AfterFunc(when, func() { kill(n, "service") })
					e := <-started(echoer(caller, "svc.slow"), limit)
					switch ran := len(g.entered) > 0; {
					case when > known:
						failed(t, e.err, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
						assert.True(t, e.took-when <= found, "killed at", when.String(), "noticed after", (e.took - when).String())
					case when < lag: // the broker had not got the request
						failed(t, e.err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
						assert.True(t, !ran, "did not run")
					case endpoint.CodeOf(e.err) == endpoint.Unavailable: // the broker had the beat
						failed(t, e.err, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
						assert.True(t, when >= known-lag, when.String())
					default:
						failed(t, e.err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
						assert.Equal(t, e.took.String(), limit.String())
					}
					time.Sleep(5 * time.Second)
					assert.Equal(t, caller.Slots()+caller.Watched(), 0)
				})
			}
		})
	}
}

// An answer that takes longer than the time between two probes is an answer.
func TestRow06KilledFarAway(t *testing.T) {
	const lag = 200 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		until(t, service, "svc.slow")
		distance(n, lag, "service", "caller")
		done := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(10 * time.Second)
		kill(n, "service")
		died := time.Now()
		e := <-done
		failed(t, e.err, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
		assert.True(t, time.Since(died) <= found+lag, time.Since(died).String())
		time.Sleep(5 * time.Second)
		assert.Equal(t, caller.Slots(), 0, "no probe is open any more")
	})
}

// Of two instances one dies: its calls end, the others' go on.
func TestRow06OnlyItsCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, one, caller := far(t)
		two := n.Connect("two", quiet())
		g1, _ := until(t, one, "svc.slow")
		g2, _ := until(t, two, "svc.slow")
		distance(n, 5*time.Millisecond, "service", "caller", "two")
		var calls []chan ended
		for range 100 {
			calls = append(calls, started(echoer(caller, "svc.slow"), time.Minute))
		}
		time.Sleep(time.Second)
		assert.Equal(t, len(g1.entered)+len(g2.entered), len(calls))
		kill(n, "service")
		time.Sleep(found)
		lost := 0
		for i, c := range calls {
			select {
			case e := <-c:
				lost++
				failed(t, e.err, endpoint.Unavailable, endpoint.ReasonInstanceLost, endpoint.MaybeExecuted)
				assert.Equal(t, e.instance, one.ID())
				calls[i] = nil
			default:
			}
		}
		assert.Equal(t, lost, len(g1.entered))
		time.Sleep(20 * time.Second)
		g2.open()
		for _, c := range calls {
			if c != nil {
				e := <-c
				assert.NoError(t, e.err)
				assert.Equal(t, e.instance, two.ID())
			}
		}
	})
}

// tap listens to the control frames of one verb.
func tap(t testing.TB, n *bustest.Net, verb string, f func(m *nats.Msg)) {
	t.Helper()
	respond(t, n.Dial("tap"), "_RPC.>", func(m *nats.Msg) {
		if m.Header.Get(wire.Ctl) == verb {
			f(m)
		}
	})
}

// However many calls come and go, an instance is asked every tenth of a second at most.
func TestPaceOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, one, caller := far(t)
		two := n.Connect("two", quiet())
		var mu sync.Mutex
		last, probes := map[string]time.Time{}, 0
		tap(t, n, wire.VerbPing, func(m *nats.Msg) {
			mu.Lock()
			defer mu.Unlock()
			instance := m.Subject[:strings.LastIndexByte(m.Subject, '.')]
			if at, ok := last[instance]; ok {
				if gap := time.Since(at); gap < 100*time.Millisecond {
					t.Error("asked again after ", gap)
				}
			}
			last[instance] = time.Now()
			probes++
		})
		for _, b := range []*bus.Bus{one, two} {
			started(echoer(caller, "svc.slow"), time.Minute) // the first of them is there sooner, so that they are asked in turn
			time.Sleep(50 * time.Millisecond)
			serve(t, b, "svc.slow", rawEndpoint(func(_ context.Context, _ []byte) ([]byte, error) {
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
				return nil, nil
			}))
		}
		start := time.Now()
		each(500, func(int) error {
			for time.Since(start) < 20*time.Second {
				assert.NoError(t, (<-started(echoer(caller, "svc.slow"), time.Minute)).err)
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, len(last), 2)
		assert.True(t, probes > 2*190 && probes <= 2*250, fmt.Sprint(probes))
		assert.Equal(t, caller.Slots()+caller.Watched(), 0)
	})
}

// An instance far away says for a while that it does not have the call, and then that it does. While the caller had no time to
// ask again, that is one word.
func TestOneWordIsNoLoss(t *testing.T) {
	const lag = 200 * time.Millisecond
	for during, lost := range map[time.Duration]bool{100 * time.Millisecond: false, 500 * time.Millisecond: false, 2 * time.Second: true} {
		t.Run(during.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				caller := n.Connect("caller", quiet())
				c := newCrowd(t, n.Dial("peer"))
				distance(n, lag, "caller", "peer")
				done := started(echoer(caller, "svc.slow"), time.Minute)
				time.Sleep(5 * time.Second)
				c.lose(named(0))
				time.AfterFunc(during, func() { c.lose("") })
				time.Sleep(5 * time.Second)
				assert.Equal(t, len(done) > 0, lost, "it ended")
				if lost {
					failed(t, (<-done).err, endpoint.Unavailable, endpoint.ReasonReplyLost, endpoint.MaybeExecuted)
					return
				}
				assert.NoError(t, c.requests[0].Respond(nil))
				assert.NoError(t, (<-done).err)
			})
		})
	}
}

// crowd is an instance of the test's own making that has taken calls, and then loses one.
type crowd struct {
	mu       sync.Mutex
	requests []*nats.Msg
	lost     string
	fewest   int // calls that a probe asked for
}

func newCrowd(t testing.TB, nc *nats.Conn) *crowd {
	t.Helper()
	c := &crowd{fewest: wire.MaxCalls}
	respond(t, nc, "_RPC.svc.i1.>", func(m *nats.Msg) {
		c.mu.Lock()
		defer c.mu.Unlock()
		asked := strings.Fields(m.Subject[lastDot(m.Subject)+1:] + " " + string(m.Data))
		c.fewest = min(c.fewest, len(asked))
		missing := ""
		if slices.Contains(asked, c.lost) {
			missing = c.lost
		}
		beat(nc, m, wire.VerbBeat, missing)
	})
	respond(t, nc, "svc.slow", func(m *nats.Msg) {
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: below(named(len(c.requests))), Header: nats.Header(wire.WriteAck("i1"))})
		c.requests = append(c.requests, m)
	})
	return c
}

// lose makes it say that it does not have the call.
func (c *crowd) lose(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = call
}

func named(call int) string { return fmt.Sprintf("%011d", call) }

// Of many calls at one instance one gets lost. Those that fit in a frame are asked for with each probe, of more each in its turn.
func TestOneOfManyIsLost(t *testing.T) {
	for calls, within := range map[int]time.Duration{
		1: 200 * time.Millisecond, 2: 200 * time.Millisecond, 255: 200 * time.Millisecond, 256: 200 * time.Millisecond,
		257: 5 * time.Second, 1000: 20 * time.Second,
	} {
		t.Run(fmt.Sprint(calls), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				caller := n.Connect("caller", quiet())
				c := newCrowd(t, n.Dial("peer"))
				all := make(chan ended, calls)
				for range calls {
					go func() { all <- <-started(echoer(caller, "svc.slow"), time.Minute) }()
				}
				time.Sleep(time.Second)
				assert.Equal(t, caller.Watched(), calls)
				c.mu.Lock()
				c.lost, c.fewest = named(calls-1), calls
				c.mu.Unlock()
				start := time.Now()
				e := <-all
				failed(t, e.err, endpoint.Unavailable, endpoint.ReasonReplyLost, endpoint.MaybeExecuted)
				assert.True(t, time.Since(start) <= within, time.Since(start).String())
				time.Sleep(5 * time.Second)
				assert.Equal(t, caller.Watched(), calls-1)
				c.mu.Lock()
				defer c.mu.Unlock()
				assert.Equal(t, c.fewest, min(max(calls-1, 1), wire.MaxCalls))
				for _, m := range c.requests[:calls-1] {
					assert.NoError(t, m.Respond(nil))
				}
				for range calls - 1 {
					assert.NoError(t, (<-all).err)
				}
			})
		})
	}
}

// What the broker denied on one connection it may allow on the next.
func TestAcksComeBackWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, service, caller := far(t)
		g, _ := until(t, service, "svc.slow")
		service.Heard(fmt.Errorf("%w: Permissions Violation for Publish to %q", nats.ErrPermissionViolation, "_INBOX.x.000000000000~d5S~a1"))
		first := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(time.Second)
		assert.Equal(t, service.Acked(), 0, "no acks any more")
		g.opened <- struct{}{}
		assert.NoError(t, (<-first).err)
		n.Link("service").Cut()
		time.Sleep(6 * time.Second)
		second := started(echoer(caller, "svc.slow"), time.Minute)
		time.Sleep(time.Second)
		assert.Equal(t, service.Acked(), 1)
		g.open()
		assert.NoError(t, (<-second).err)
	})
}
