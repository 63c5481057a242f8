package bus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
)

// plan is a gather, and what each of its members does.
type plan struct {
	waits   []time.Duration // until each answers; forGood: never
	fails   []bool
	quorum  int
	stall   time.Duration
	timeout time.Duration
}

// draw makes a plan in which no two things happen at the same time.
func draw(t *rapid.T) plan {
	var p plan
	n := rapid.IntRange(1, 5).Draw(t, "members")
	for i := range n {
		p.fails = append(p.fails, rapid.Bool().Draw(t, "fails"))
		wait := time.Duration(100*rapid.IntRange(1, 12).Draw(t, "wait")+i) * ms
		if rapid.IntRange(0, 3).Draw(t, "silent") == 0 {
			wait = forGood
		}
		p.waits = append(p.waits, wait)
	}
	p.quorum = rapid.IntRange(0, n+1).Draw(t, "quorum")
	if rapid.Bool().Draw(t, "stalls") {
		p.stall = time.Duration(100*rapid.IntRange(0, 8).Draw(t, "stall")+37) * ms
	}
	p.timeout = time.Duration(100*rapid.IntRange(1, 14).Draw(t, "timeout")+53) * ms
	return p
}

// model is what a gather of the plan yields, by the rules as they are written.
func (p plan) model() (h heard) {
	order := make([]int, 0, len(p.waits))
	for i := range p.waits {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return int(p.waits[a] - p.waits[b]) })
	good := 0
	for k, i := range order {
		end := p.timeout
		if p.stall > 0 {
			end = min(end, h.took+p.stall)
		}
		if p.waits[i] > end { // too late, and so is who comes after
			h.took = end
			for _, late := range order[k:] {
				h.missing = append(h.missing, fmt.Sprint(late, " no_answer"))
			}
			slices.Sort(h.missing)
			return h
		}
		h.took = p.waits[i]
		if p.fails[i] {
			h.said = append(h.said, fmt.Sprint(i, " aborted"))
			continue
		}
		h.said = append(h.said, fmt.Sprint(i, " 3"))
		if good++; good == p.quorum {
			return h
		}
	}
	return h
}

// A gather ends by the rules, whatever its members do, and whoever is canceled knows.
func TestGatherModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bustest.NewNet(t)
		team := squad(t, n, 0, 0, 0, 0, 0)
		caller := n.Connect("caller", quiet())
		for k := range team {
			for _, m := range team[:k+1] {
				serve(t, m.Bus, fmt.Sprintf("svc.count%d", k+1), endpoint.New(m.handle))
			}
		}
		warm(t, caller, team)
		// Without the deadline of the test, which a bubble does not know.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			p := draw(rt)
			opts := []endpoint.Option{endpoint.Timeout(p.timeout)}
			if p.quorum > 0 {
				opts = append(opts, endpoint.Quorum(p.quorum))
			}
			if p.stall > 0 {
				opts = append(opts, endpoint.Stall(p.stall))
			}
			for i, m := range team[:len(p.waits)] {
				m.wait, m.fails = p.waits[i], nil
				if p.fails[i] {
					m.fails = endpoint.Aborted.New("")
				}
			}
			subject := fmt.Sprint("svc.count", len(p.waits))
			want := p.model()
			got := gathers(team, endpoint.Gather[*AddRequest, *AddResponse](caller, subject, opts...)(t.Context(), &AddRequest{1, 2}))
			if fmt.Sprint(got) != fmt.Sprint(want) {
				rt.Fatalf("%+v\ngot  %v\nwant %v", p, got, want)
			}
			for i, m := range team[:len(p.waits)] { // who did not answer is told, at the latest by the deadline
				if !slices.ContainsFunc(want.said, func(s string) bool { return strings.HasPrefix(s, fmt.Sprint(i, " ")) }) {
					select {
					case cause := <-m.ended:
						if want.took < p.timeout && endpoint.CodeOf(cause) != endpoint.Canceled {
							rt.Fatalf("%+v: %d ended by %v", p, i, cause)
						}
					case <-time.After(p.waits[i] - want.took): // it answered before it was told
					}
				}
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if left := caller.Slots() + caller.Tombs(); left > 0 {
				rt.Fatalf("%+v: %d slots left", p, left)
			}
			for _, m := range team {
				for len(m.ended) > 0 {
					<-m.ended
				}
			}
		})
		tidy(t, caller, team...)
	})
}
