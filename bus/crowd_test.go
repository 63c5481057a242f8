package bus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// blind is a bus that may not ask who is there.
func blind(t testing.TB, n *bustest.Net) *bus.Bus {
	t.Helper()
	return n.Connect("caller", quiet(), bus.WithNATS(nats.UserInfo("blind", "p")))
}

// sighted has a net whose user blind may not ask who is there.
func sighted(t testing.TB) *bustest.Net {
	t.Helper()
	return bustest.NewNet(t, embedded.WithUsers(
		embedded.User{Name: "all", Password: "p"},
		embedded.User{Name: "blind", Password: "p", Publish: embedded.Permission{Deny: []string{"$SRV.>"}}},
	))
}

// choir serves svc.count without a queue group.
func choir(t testing.TB, n *bustest.Net, waits ...time.Duration) []*member {
	t.Helper()
	var out []*member
	for i, wait := range waits {
		m := &member{Bus: n.Connect(fmt.Sprint("m", i), quiet(), bus.WithNATS(nats.UserInfo("all", "p"))), wait: wait, ended: make(chan error, 1<<14)}
		serve(t, m.Bus, "svc.count", endpoint.New(m.handle, endpoint.Queue("")))
		out = append(out, m)
	}
	return out
}

// Who may not ask who is there hears all who have no group: it waits for those that acked, and for a while for others.
func TestGatherWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		team := choir(t, n, 5*ms, 20*ms, 600*ms)
		caller := blind(t, n)
		for range 2 { // asked in vain, and not asked again
			h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
			assert.Equal(t, h, heard{said: []string{"0 3", "1 3", "2 3"}, took: 850 * ms})
		}
		tidy(t, caller, team...)
	})
}

// Where all who have no group take direct calls, each gets one, and nobody waits for silence.
func TestGatherWithoutAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := choir(t, n, 5*ms, 20*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		h := gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3", "1 3"}, took: 20 * ms})
		assert.Equal(t, team[0].ran.Load()+team[1].ran.Load(), int32(2))
		tidy(t, caller, team...)
	})
}

// Silence counts from when they were asked, not while it is found out how; and whoever was found by the deadline is named.
func TestGatherWithoutAGroupFromNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := choir(t, n, 5*ms, 20*ms)
		h := gathers(team, gatherer(n.Connect("hasty", quiet()), endpoint.Timeout(100*ms))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{missing: []string{"0 no_answer", "1 no_answer"}, took: 100 * ms})
		assert.Equal(t, team[0].ran.Load()+team[1].ran.Load(), int32(0))
		caller := n.Connect("caller", quiet())
		h = gathers(team, gatherer(caller, endpoint.Stall(100*ms))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3", "1 3"}, took: 270 * ms})
		tidy(t, caller, team...)
	})
}

// Who acked and is silent is missing, and canceled.
func TestGatherWithoutDiscoveryMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		team := choir(t, n, 5*ms, forGood)
		caller := blind(t, n)
		h := gathers(team, gatherer(caller, endpoint.Stall(100*ms))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, missing: []string{"1 no_answer"}, took: 105 * ms})
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		h = gathers(team, gatherer(caller, endpoint.Timeout(time.Second))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, missing: []string{"1 no_answer"}, took: time.Second})
		assert.ErrorIs(t, <-team[1].ended, context.DeadlineExceeded)
		tidy(t, caller, team...)
	})
}

// Who leaves cancels those that acked, and those that do so later.
func TestGatherWithoutDiscoveryLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		team := choir(t, n, 5*ms, forGood, forGood)
		caller := blind(t, n)
		for range gatherer(caller)(t.Context(), &AddRequest{1, 2}) {
			break // nobody has acked yet
		}
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		assert.ErrorIs(t, <-team[2].ended, endpoint.Canceled)
		team[0].wait = 50 * ms
		h := gathers(team, gatherer(caller, endpoint.First())(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3"}, took: 50 * ms})
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		assert.ErrorIs(t, <-team[2].ended, endpoint.Canceled)
		tidy(t, caller, team...)
	})
}

// Those, too, whose acks came while the consumer was busy.
func TestGatherWithoutDiscoveryLeftLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		team := choir(t, n, 5*ms, forGood, forGood)
		caller := blind(t, n)
		for range gatherer(caller)(t.Context(), &AddRequest{1, 2}) {
			time.Sleep(100 * ms)
			break
		}
		left := time.Now()
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		assert.ErrorIs(t, <-team[2].ended, endpoint.Canceled)
		assert.True(t, time.Since(left) < 50*ms, time.Since(left).String())
		tidy(t, caller, team...)
	})
}

// Nobody there is known at once, silence after Stall or by the deadline.
func TestGatherWithoutDiscoveryNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		caller := blind(t, n)
		h := gathers(nil, gatherer(caller)(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		assert.Equal(t, h.took, time.Duration(0))
		respond(t, n.Dial("peer", nats.UserInfo("all", "p")), "svc.count", func(*nats.Msg) {})
		h = gathers(nil, gatherer(caller, endpoint.Stall(time.Second))(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.Unavailable, endpoint.ReasonNoAnswer, endpoint.MaybeExecuted)
		assert.Equal(t, h.took, time.Second)
		h = gathers(nil, gatherer(caller)(t.Context(), &AddRequest{}))
		failed(t, h.err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		assert.Equal(t, h.took, 10*time.Second)
		time.Sleep(time.Minute)
		assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
	})
}

// What can't be sent leaves nothing behind.
func TestGatherWithoutDiscoveryNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		caller := blind(t, n)
		big := endpoint.Gather[[]byte, []byte](caller, "svc.count", endpoint.Codec(codec.Raw))
		var last error
		for _, last = range big(t.Context(), make([]byte, 2<<20)) {
		}
		failed(t, last, endpoint.ResourceExhausted, endpoint.ReasonRequestTooLarge, endpoint.NotSent)
		assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
	})
}

// A group gets one request, of which one member is heard: whoever can't ask can't know.
func TestGatherWithoutDiscoveryOfAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		var ran atomic.Int32
		for i := range 3 {
			b := n.Connect(fmt.Sprint("m", i), quiet(), bus.WithNATS(nats.UserInfo("all", "p")))
			serve(t, b, "svc.count", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
				ran.Add(1)
				return add(ctx, r)
			}))
		}
		h := gathers(nil, gatherer(blind(t, n))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"? 3"}, took: 250 * ms})
		assert.Equal(t, ran.Load(), int32(1))
	})
}

// strangers are services of another make on svc.count.
func strangers(t testing.TB, n *bustest.Net, queue string, replies ...string) {
	t.Helper()
	for i, reply := range replies {
		s, err := micro.AddService(n.Dial(fmt.Sprint("s", i)), micro.Config{Name: "svc", Version: "1.0.0", QueueGroupDisabled: queue == ""})
		assert.NoError(t, err)
		assert.NoError(t, s.AddEndpoint("count", micro.HandlerFunc(func(r micro.Request) {
			if reply == "fail" {
				assert.NoError(t, r.Error("404", "nothing here", nil))
			} else if reply != "" {
				assert.NoError(t, r.Respond([]byte(reply)))
			}
		}), micro.WithEndpointSubject("svc.count")))
	}
	synctest.Wait()
}

// Services of another make are asked all at once where none is one of a group; where some are ours, these have their names.
func TestGatherFromStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller := n.Connect("caller", quiet())
		strangers(t, n, "", `{"Sum":1}`, "fail")
		h := gathers(nil, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		slices.Sort(h.said)
		assert.Equal(t, h, heard{said: []string{"? 1", "? not_found"}, took: 500 * ms}) // two silences
		team := choir(t, n, 5*ms, forGood)
		time.Sleep(time.Second)
		h = gathers(team, gatherer(caller, endpoint.Stall(time.Second))(t.Context(), &AddRequest{1, 2}))
		slices.Sort(h.said)
		assert.Equal(t, h.said, []string{"0 3", "? 1", "? not_found"})
		assert.Equal(t, h.missing, []string{"1 no_answer"})
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		tidy(t, caller, team...)
	})
}

// Those of a group can't be asked each: they say so, and ours are heard.
func TestGatherFromStrangersOfAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		caller := n.Connect("caller", quiet())
		strangers(t, n, "q", `{"Sum":1}`, `{"Sum":2}`)
		h := gathers(nil, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"? unimplemented unsupported", "? unimplemented unsupported"})
		team := squad(t, n, 10*ms)
		time.Sleep(time.Second)
		h = gathers(team, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		slices.Sort(h.said)
		assert.Equal(t, h.said, []string{"0 3", "? unimplemented unsupported", "? unimplemented unsupported"})
		tidy(t, caller, team...)
	})
}

// Of one that answers a request to all twice, the first answer counts where it says who it is.
func TestGatherCrowdAnswersTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		caller := blind(t, n)
		peer := n.Dial("peer", nats.UserInfo("all", "p"))
		respond(t, peer, "svc.count", func(m *nats.Msg) {
			for range 3 {
				assert.NoError(t, peer.PublishMsg(&nats.Msg{Subject: m.Reply, Data: []byte(`{"Sum":1}`), Header: nats.Header{"Rpc-Instance": {"PEER"}}}))
			}
			assert.NoError(t, peer.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: "$JS.API.x", Header: nats.Header{"Rpc-Ack": {"EVIL"}}}))
		})
		h := gathers(nil, gatherer(caller)(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"? 1"}, took: 250 * ms})
		assert.Equal(t, own(caller).Late, uint64(2))
		assert.Equal(t, own(caller).Malformed, uint64(1), "a control subject that can't be")
	})
}

// More than a consumer can take is told, not kept.
func TestGatherCrowdFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sighted(t)
		caller := blind(t, n)
		peer := n.Dial("peer", nats.UserInfo("all", "p"))
		respond(t, peer, "svc.count", func(m *nats.Msg) {
			for range 20 {
				assert.NoError(t, m.Respond([]byte(`{"Sum":1,"Pad":"`+strings.Repeat("x", 1<<19)+`"}`)))
			}
		})
		replies := 0
		var last error
		for _, err := range gatherer(caller)(t.Context(), &AddRequest{1, 2}) {
			if last = err; err == nil {
				time.Sleep(time.Second)
				replies++
			}
		}
		failed(t, last, endpoint.ResourceExhausted, "", endpoint.MaybeExecuted)
		assert.True(t, replies > 10 && replies < 20, fmt.Sprint(replies))
		time.Sleep(time.Minute)
		assert.Equal(t, caller.Slots()+caller.Tombs(), 0)
	})
}
