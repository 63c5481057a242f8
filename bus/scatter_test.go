package bus_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// member is one instance of a squad, and what it does with a call.
type member struct {
	*bus.Bus

	wait  time.Duration // until it answers, or its context ends
	fails error
	ran   atomic.Int32
	ended chan error // the causes of the contexts that ended before it answered
}

func (m *member) handle(ctx context.Context, r *AddRequest) (*AddResponse, error) {
	m.ran.Add(1)
	select {
	case <-time.After(m.wait):
		return &AddResponse{r.A + r.B}, m.fails
	case <-ctx.Done():
		m.ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
}

const forGood = 24 * time.Hour

// squad serves svc.count by instances that answer after so long each.
func squad(t testing.TB, n *bustest.Net, waits ...time.Duration) []*member {
	t.Helper()
	var out []*member
	for i, wait := range waits {
		m := &member{Bus: n.Connect(fmt.Sprint("m", i), quiet()), wait: wait, ended: make(chan error, 1<<14)}
		serve(t, m.Bus, "svc.count", endpoint.New(m.handle))
		out = append(out, m)
	}
	return out
}

func gatherer(b *bus.Bus, opts ...endpoint.Option) func(context.Context, *AddRequest) iter.Seq2[endpoint.Reply[*AddResponse], error] {
	return endpoint.Gather[*AddRequest, *AddResponse](b, "svc.count", opts...)
}

// heard is what a gather yielded: the members' numbers with what each said, and who is missing.
type heard struct {
	said    []string
	missing []string
	err     error
	took    time.Duration
}

func gathers(ms []*member, replies iter.Seq2[endpoint.Reply[*AddResponse], error]) (h heard) {
	start := time.Now()
	for r, err := range replies {
		if err != nil {
			h.err = err
			continue
		}
		name := "?"
		if i := slices.IndexFunc(ms, func(m *member) bool { return m.ID() == r.Instance }); i >= 0 {
			name = fmt.Sprint(i)
		}
		e, _ := errors.AsType[*endpoint.Error](r.Err)
		switch missing, ok := errors.AsType[*endpoint.MissingError](r.Err); {
		case ok:
			if !slices.Contains(missing.Instances, r.Instance) || e == nil || e.Code != endpoint.Unavailable {
				name += "!"
			}
			h.missing = append(h.missing, strings.TrimSpace(name+" "+e.Reason()))
		case r.Err != nil:
			h.said = append(h.said, name+" "+strings.TrimSpace(endpoint.CodeOf(r.Err).String()+" "+e.Reason()))
		default:
			h.said = append(h.said, fmt.Sprint(name, " ", r.Value.Sum))
		}
	}
	slices.Sort(h.missing)
	h.took = time.Since(start)
	return h
}

// warm has a caller know who is there, and leaves nothing under way.
func warm(t testing.TB, b *bus.Bus, ms []*member) {
	t.Helper()
	waits := make([]time.Duration, len(ms))
	for i, m := range ms {
		waits[i], m.wait = m.wait, 0
	}
	h := gathers(ms, gatherer(b)(t.Context(), &AddRequest{}))
	assert.NoError(t, h.err)
	assert.Equal(t, len(h.said), len(ms))
	for i, m := range ms {
		m.wait = waits[i]
		m.ran.Store(0)
	}
}

// tidy wants nothing left behind.
func tidy(t testing.TB, caller *bus.Bus, ms ...*member) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	assert.Equal(t, caller.Slots()+caller.Tombs()+caller.Watched(), 0)
	for _, m := range ms {
		assert.Equal(t, m.Acked(), 0)
		if !m.Conn().IsClosed() {
			assert.Equal(t, statsOf(t, m.Bus, "svc.count").InFlight, int64(0))
		}
	}
}

const ms = time.Millisecond

// Every instance is asked once, and answers under its own name. Who does not know yet who is there has to wait for silence; who
// does ends with the slowest.
func TestGatherAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 30*ms, 10*ms, 20*ms)
		team[2].fails = endpoint.NotFound.New("nothing here")
		caller := n.Connect("caller", quiet())
		want := []string{"1 3", "2 not_found", "0 3"}
		gather := gatherer(caller)
		h := gathers(team, gather(t.Context(), &AddRequest{1, 2}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, want)
		assert.Equal(t, h.took, 250*ms)
		h = gathers(team, gather(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: want, took: 30 * ms})
		time.Sleep(time.Second) // it asks again
		h = gathers(team, gather(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: want, took: 30 * ms})
		for _, m := range team {
			assert.Equal(t, m.ran.Load(), int32(3))
		}
		tidy(t, caller, team...)
	})
}

// Who is silent is missing: by Stall, and then canceled; by the deadline, which its handler knows.
func TestGatherMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 30*ms, forGood, 60*ms, forGood)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		h := gathers(team, gatherer(caller, endpoint.Stall(100*ms))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3", "2 3"}, missing: []string{"1 no_answer", "3 no_answer"}, took: 160 * ms})
		for _, m := range []*member{team[1], team[3]} {
			assert.ErrorIs(t, <-m.ended, endpoint.Canceled)
		}
		h = gathers(team, gatherer(caller, endpoint.Timeout(time.Second))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 3", "2 3"}, missing: []string{"1 no_answer", "3 no_answer"}, took: time.Second})
		assert.ErrorIs(t, <-team[1].ended, context.DeadlineExceeded)
		tidy(t, caller, team...)
	})
}

// A quorum of good replies is enough: the others are canceled, and nobody is missing.
func TestGatherQuorumCancelsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 20*ms, 30*ms, forGood, forGood)
		team[0].fails = endpoint.Aborted.New("")
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		h := gathers(team, gatherer(caller, endpoint.Quorum(2))(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 aborted", "1 3", "2 3"}, took: 30 * ms})
		assert.ErrorIs(t, <-team[3].ended, endpoint.Canceled)
		assert.ErrorIs(t, <-team[4].ended, endpoint.Canceled)
		team[2].wait = forGood
		h = gathers(team, gatherer(caller, endpoint.First())(t.Context(), &AddRequest{1, 2}))
		assert.Equal(t, h, heard{said: []string{"0 aborted", "1 3"}, took: 20 * ms})
		assert.ErrorIs(t, <-team[2].ended, endpoint.Canceled)
		tidy(t, caller, team...)
	})
}

// Whoever leaves the loop, in whatever way, ends the handlers' contexts one way later.
func TestGatherLeft(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, gather iter.Seq2[endpoint.Reply[*AddResponse], error]){
		"break": func(t *testing.T, gather iter.Seq2[endpoint.Reply[*AddResponse], error]) {
			t.Helper()
			for r, err := range gather {
				assert.NoError(t, err)
				assert.NoError(t, r.Err)
				break
			}
		},
		"panic": func(t *testing.T, gather iter.Seq2[endpoint.Reply[*AddResponse], error]) {
			t.Helper()
			defer func() { assert.Equal(t, recover(), any("mine")) }()
			for range gather {
				panic("mine")
			}
		},
		"goexit": func(t *testing.T, gather iter.Seq2[endpoint.Reply[*AddResponse], error]) {
			t.Helper()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range gather {
					runtime.Goexit()
				}
			}()
			<-done
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := bustest.NewNet(t)
				team := squad(t, n, 20*ms, forGood, forGood)
				caller := n.Connect("caller", quiet())
				n.Link("caller").Up.Latency(5 * ms)
				warm(t, caller, team)
				start := time.Now()
				leave(t, gatherer(caller)(t.Context(), &AddRequest{}))
				assert.Equal(t, time.Since(start), 25*ms)
				for _, m := range team[1:] {
					assert.ErrorIs(t, <-m.ended, endpoint.Canceled)
				}
				assert.True(t, time.Since(start) <= 40*ms, "the first at once, what follows a little later") // one way and cancelEvery
				tidy(t, caller, team...)
			})
		})
	}
}

// So does the end of the caller's context, which is the gather's own failure.
func TestGatherCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 20*ms, forGood)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(50*ms, cancel)
		h := gathers(team, gatherer(caller)(ctx, &AddRequest{}))
		failed(t, h.err, endpoint.Canceled, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, h.err, context.Canceled)
		assert.Equal(t, h.said, []string{"0 0"})
		assert.ErrorIs(t, <-team[1].ended, endpoint.Canceled)
		h = gathers(team, gatherer(caller)(ctx, &AddRequest{}))
		failed(t, h.err, endpoint.Canceled, "", endpoint.NotSent)
		tidy(t, caller, team...)
	})
}

// One chain surrounds the gather at the caller; at each service its own surrounds the call.
func TestGatherMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		var outside, inside atomic.Int32
		count := func(of *atomic.Int32, kind endpoint.Kind) endpoint.Middleware {
			return func(next endpoint.Handler) endpoint.Handler {
				return func(ctx context.Context, c *endpoint.Call) (any, error) {
					assert.Equal(t, c.Spec.Kind, kind)
					defer of.Add(1)
					return next(ctx, c)
				}
			}
		}
		for i := range 3 {
			b := n.Connect(fmt.Sprint(i), quiet())
			b.Use(count(&inside, endpoint.UnaryKind))
			serve(t, b, "svc.count", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
				c := endpoint.FromContext(ctx)
				c.Reply.Set("X-Reply", "yes")
				return add(ctx, &AddRequest{len(c.Header.Get("X-Asked")), c.Attempt})
			}))
		}
		caller := n.Connect("caller", quiet())
		caller.Use(count(&outside, endpoint.GatherKind))
		ctx := endpoint.WithHeader(t.Context(), "X-Asked", "seven")
		h := gathers(nil, gatherer(caller, count(&outside, endpoint.GatherKind))(ctx, &AddRequest{}))
		assert.NoError(t, h.err)
		assert.Equal(t, h.said, []string{"? 5", "? 5", "? 5"})
		assert.Equal(t, outside.Load(), int32(2))
		assert.Equal(t, inside.Load(), int32(3))
	})
}

// With no other grants than those of its role and of discovery, everybody is found, called and canceled. Without the latter, one of
// a group is heard.
func TestGatherWithLeastPrivilege(t *testing.T) {
	service, caller, s := pair(t)
	other := as(t, s, "service", "_RI.svc", content(t))
	slow := &member{Bus: other, wait: forGood, ended: make(chan error, 1)}
	quick := &member{Bus: service, ended: make(chan error, 1)}
	for _, m := range []*member{slow, quick} {
		serve(t, m.Bus, "svc.count", endpoint.New(m.handle))
	}
	team := []*member{slow, quick}
	h := gathers(team, gatherer(caller, endpoint.Stall(time.Second))(t.Context(), &AddRequest{1, 2}))
	assert.NoError(t, h.err)
	assert.Equal(t, h.said, []string{"1 3"})
	assert.Equal(t, h.missing, []string{"0 no_answer"})
	assert.ErrorIs(t, <-slow.ended, endpoint.Canceled)

	s = least(t, nil)
	for range 2 {
		serve(t, as(t, s, "service", "_RI.svc", content(t)), "svc.count", endpoint.New(add))
	}
	h = gathers(nil, gatherer(as(t, s, "client", "_RI.cli"))(t.Context(), &AddRequest{1, 2}))
	assert.NoError(t, h.err)
	assert.Equal(t, h.said, []string{"? 3"})
}

// The consumer takes its time: that is no silence of the instances.
func TestGatherSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 10*ms, 20*ms, 2040*ms)
		caller := n.Connect("caller", quiet())
		warm(t, caller, team)
		got := 0
		for r, err := range gatherer(caller, endpoint.Stall(50*ms))(t.Context(), &AddRequest{1, 2}) {
			assert.NoError(t, err)
			assert.NoError(t, r.Err)
			time.Sleep(time.Second)
			got++
		}
		assert.Equal(t, got, 3)
		tidy(t, caller, team...)
	})
}
