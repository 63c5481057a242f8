package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// An instance that dies in the middle of its call is missing as soon as that is known, and all others are waited for. Later
// nobody knows it any more.
func TestGatherMemberDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, forGood, 400*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.AfterFunc(200*ms, func() {
			n.Link("m1").Down.Freeze() // so that it does not come back
			n.Link("m1").Cut()
		})
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"0 3", "2 3"})
		assert.Equal(t, h.missing, []string{"1 instance_lost"})
		assert.True(t, h.took >= 400*ms && h.took < 600*ms, h.took.String())
		time.Sleep(time.Second)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, len(h.said), 2)
		assert.Equal(t, h.missing, nil)
		tidy(t, caller, team[0], team[2])
	})
}

// One that froze answers no question and no call: it is known from before, called all the same, and missing.
func TestGatherMemberFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 10*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.Sleep(2 * time.Second)
		n.Link("m1").Down.Freeze()
		h := gathers(team, gatherer(caller, endpoint.Stall(time.Second))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, missing: []string{"1 no_answer"}, took: 1010 * ms})
		n.Link("m1").Down.Thaw()
		tidy(t, caller, team...)
	})
}

// Where a gather ends before those who were known have said that they are still there, they are named, though nobody asked them.
func TestGatherEndsBeforeTheyAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 10*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.Sleep(2 * time.Second)
		n.Link("m1").Down.Freeze()
		h := gathers(team, gatherer(caller, endpoint.Timeout(100*ms))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, missing: []string{"1 no_answer"}, took: 100 * ms})
		n.Link("m1").Down.Thaw()
		tidy(t, caller, team...)
	})
}

// One that drains answers what it has. Whoever asks a moment later hears that it is gone, and then nobody knows it any more.
func TestGatherMemberDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 100*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		drained := make(chan error, 1)
		time.AfterFunc(20*ms, func() { drained <- team[1].Drain(context.Background()) })
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3", "1 3"}, took: 100 * ms})
		assert.NoError(t, <-drained)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, missing: []string{"1 no_responders"}, took: 10 * ms})
		time.Sleep(250 * ms)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"0 3"})
		assert.Equal(t, h.missing, nil)
		tidy(t, caller, team[0])
	})
}

// One that joins is asked by whoever looks for it: within a second, and also in the middle of a gather that looks.
func TestGatherMemberJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.Sleep(time.Second)
		joined := make(chan *member, 1)
		time.AfterFunc(50*ms, func() {
			late := &member{Bus: n.Connect("late", quiet()), wait: 20 * ms, ended: make(chan error, 1)}
			assert.NoError(t, late.Serve("svc.count", endpoint.New(late.handle)))
			joined <- late
		})
		team[0].wait = 100 * ms
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, took: 100 * ms})
		team = append(team, <-joined)
		time.Sleep(time.Second)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"1 3", "0 3"}, took: 100 * ms})
		tidy(t, caller, team...)
	})
}

// impostor answers as an instance that serves svc.count, as often as times says, and nothing else.
func impostor(t testing.TB, nc *nats.Conn, service, id string, times int) {
	t.Helper()
	info, err := json.Marshal(micro.Info{
		ServiceIdentity: micro.ServiceIdentity{Name: service, ID: id, Version: "1.0.0"}, Type: micro.InfoResponseType,
		Endpoints: []micro.EndpointInfo{{
			Name: "count", Subject: "svc.count", QueueGroup: "q", Metadata: map[string]string{"rpc.v": "1", "rpc.features": "ack,direct"},
		}},
	})
	assert.NoError(t, err)
	respond(t, nc, "$SRV.INFO", func(m *nats.Msg) {
		for range times {
			assert.NoError(t, m.Respond(info))
		}
	})
}

// Who is not who it says it is does no harm: one that was found and isn't there is missing, one that says it twice is one, of one
// that answers twice the first answer counts.
func TestGatherImpostors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms)
		caller := n.Connect("caller", quiet())
		peer := n.Dial("peer")
		impostor(t, peer, "svc", "GONE", 1)
		impostor(t, peer, "svc", "TWICE", 2)
		impostor(t, peer, "svc", team[0].ID(), 1)
		impostor(t, peer, "other", team[0].ID(), 1)
		impostor(t, peer, "other", "TWICE", 1)
		respond(t, peer, "_RPC.other.TWICE.e.svc.count", func(m *nats.Msg) {
			time.AfterFunc(5*ms, func() { assert.NoError(t, m.Respond([]byte(`{"Sum":3}`))) })
		})
		var calls atomic.Int32
		respond(t, peer, "_RPC.svc.TWICE.e.svc.count", func(m *nats.Msg) {
			calls.Add(1)
			assert.NoError(t, m.Respond([]byte(`{"Sum":1}`)))
			assert.NoError(t, m.Respond([]byte(`{"Sum":2}`)))
		})
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"? 1", "0 3"}, missing: []string{"? no_responders"}, took: 250 * ms})
		assert.Equal(t, calls.Load(), int32(1))
		assert.Equal(t, team[0].ran.Load(), int32(1))
		assert.Equal(t, own(caller).Late, uint64(2))
		assert.Equal(t, own(caller).Malformed, uint64(2), "answers of one instance but the first")
		tidy(t, caller, team...)
	})
}

// Where all were known, and none is there any more, that is what a gather says; where nobody was, the same, in its own name.
func TestGatherNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller := n.Connect("caller", quiet())
		start := time.Now()
		h := gathers(nil, gatherer(caller)(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		assert.Equal(t, time.Since(start), time.Duration(0), "nobody answers questions either")
		team := squad(t, n, 0)
		serve(t, team[0].Bus, "svc.other", endpoint.New(add))
		time.Sleep(time.Second)
		warm(t, caller, team)
		assert.NoError(t, team[0].Stop(t.Context(), "svc.count"))
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{}))
		assert.Equal(t, h, heard{missing: []string{"0 no_responders"}})
		time.Sleep(time.Second)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		time.Sleep(time.Minute)
		assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
	})
}

// A gather that is directed asks one instance, and nobody is looked for.
func TestGatherDirected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 20*ms)
		caller := n.Connect("caller", quiet())
		h := gathers(team, gatherer(caller)(endpoint.WithInstance(t.Context(), team[1].ID()), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"1 3"}, took: 20 * ms})
		h = gathers(team, gatherer(caller)(endpoint.WithInstance(t.Context(), "nobody"), &AddRequest{1, 2}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		assert.Equal(t, team[0].ran.Load(), int32(0))
	})
}

// What can't be sent fails as a whole before anything is; what the instances refuse is their answer.
func TestGatherRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 20*ms)
		serve(t, team[0].Bus, "svc.tail", endpoint.NewServerStream(silentStream(nil)))
		caller := n.Connect("caller", quiet())
		h := gathers(team, endpoint.Gather[*AddRequest, *AddResponse](caller, "svc.tail")(t.Context(), &AddRequest{}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"0 unimplemented"})
		h = gathers(team, gatherer(caller)(t.Context(), nil))
		failed(t, h.err, endpoint.InvalidArgument, "", endpoint.NotSent)
		n.Server.Shutdown()
		synctest.Wait()
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
		assert.NoError(t, n.Server.Restart())
		time.Sleep(5 * time.Second)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"0 3", "1 3"}, "the next one works")
	})
}

// When the connection is lost, calls that nobody acked are lost with it; who acked is asked again, and answers.
func TestGatherConnectionLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, time.Second, 2*time.Second)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.AfterFunc(5*ms, n.Link("caller").Cut)
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.missing, []string{"0 connection_lost", "1 connection_lost"})
		n.Link("caller").Mend()
		time.Sleep(5 * time.Second)
		time.AfterFunc(500*ms, n.Link("caller").Cut)
		time.AfterFunc(510*ms, n.Link("caller").Mend)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		slices.Sort(h.said) // kept where they were, both come at once
		assert.Equal(t, h.said, []string{"0 3", "1 3"})
		tidy(t, caller, team...)
	})
}

// A bus that is closed meanwhile says so.
func TestGatherBusClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, forGood)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		time.AfterFunc(100*ms, func() { assert.NoError(t, caller.Close()) })
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h.said, []string{"0 3"})
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonConnectionClosed, endpoint.MaybeExecuted)
	})
}

// Thousands who leave at once leave nothing behind, and their cancels share frames.
func TestGatherCancelStorm(t *testing.T) {
	gathers := scaled(300, 3000)
	t.Logf("%d gathers of 3 instances (POSTBUS_FULL: 3,000)", gathers)
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, forGood, forGood, forGood)
		for _, m := range team {
			assert.NoError(t, m.Stop(t.Context(), "svc.count"))
			serve(t, m.Bus, "svc.count", endpoint.New(m.handle, endpoint.Concurrency(gathers)))
		}
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		var frames atomic.Int32
		_, err := n.Dial("ear").Subscribe("_RPC.svc.*.c.*", func(m *nats.Msg) {
			if m.Header.Get("Rpc-Ctl") == "cancel" {
				frames.Add(1)
			}
		})
		assert.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range gathers {
			wg.Go(func() {
				for _, err := range gatherer(caller)(ctx, &AddRequest{}) {
					assert.ErrorIs(t, err, endpoint.Canceled)
				}
			})
		}
		time.Sleep(time.Second)
		assert.Equal(t, caller.Slots(), 3*gathers)
		cancel()
		wg.Wait()
		left := time.Now()
		for _, m := range team {
			for range gathers {
				assert.ErrorIs(t, <-m.ended, endpoint.Canceled)
			}
		}
		assert.True(t, time.Since(left) <= 50*ms, time.Since(left).String())
		synctest.Wait()
		assert.True(t, int(frames.Load()) <= 3*gathers/100+12, fmt.Sprint(frames.Load(), " frames"))
		tidy(t, caller, team...)
	})
}

// Instances of many: the gather is over soon after the slowest has answered.
func TestGatherOverAHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		waits := make([]time.Duration, scaled(20, 100))
		for i := range waits {
			waits[i] = time.Duration(1+i%20) * ms
		}
		team := squad(t, n, waits...)
		caller := n.Connect("caller", quiet())
		latency(n)
		warm(t, caller, team)
		for range 3 {
			h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
			assert.NoError(t, h.err)
			assert.Equal(t, len(h.said), len(team))
			assert.True(t, h.took <= 2*30*ms, h.took.String()) // the slowest: 20 ms, and two ways to go
			time.Sleep(time.Second)
		}
	})
}
