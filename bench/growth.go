package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

// curve is how throughput changes while one thing grows, ours beside nats.go by hand.
type curve struct {
	name   string
	points []growth
}

// growth is a point of a curve: how many there are, and who is measured then.
type growth struct {
	x          int
	ours, hand harness.Point
}

// grown is such a point after it was measured.
type grown struct {
	Curve string  `json:"curve"`
	X     int     `json:"x"`
	Ours  float64 `json:"postbus"` // calls a second, median; 0 where it could not be measured
	Hand  float64 `json:"raw"`
	Ratio float64 `json:"ratio"` // of ours to the other, median of the rounds
	Worse float64 `json:"worse"` // its lower bound
}

func (p *plan) curves() []curve {
	at := func(c peer.Crowd, x, callers, size int) growth {
		l := harness.Load{Callers: callers, Size: size, Warm: p.warm, Window: p.window}
		return growth{x, harness.Point{System: c.Postbus, Load: l}, harness.Point{System: c.Hand, Load: l}}
	}
	crowds := func(name string, callers int, cs []peer.Crowd) curve {
		c := curve{name: name}
		for _, crowd := range cs {
			c.points = append(c.points, at(crowd, crowd.N, callers, small))
		}
		return c
	}
	flights, payloads := curve{name: "calls in flight"}, curve{name: "payload in bytes (64 callers)"}
	for _, n := range []int{1, 4, 16, 64, 256, 1024, 4096, 16_384, 100_000} {
		flights.points = append(flights.points, at(peer.Flights(), n, n, small))
	}
	for _, size := range []int{small, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 512 << 10} {
		payloads.points = append(payloads.points, at(peer.Flights(), size, 64, size))
	}
	return []curve{
		crowds("endpoints on one bus (64 callers)", 64, peer.Endpoints()),
		crowds("instances in a queue group (64 callers)", 64, peer.Instances()),
		flights, payloads,
		crowds("connections of the client (256 callers)", 256, peer.Connections()),
	}
}

// growth measures the curves that -only names, and draws them. Each point has processes and a broker of its own: what other
// points left behind would be part of it.
func (p *plan) measureGrowth(rep *report) error {
	var failed error
	var drawn []panel
	for _, c := range p.curves() {
		if !p.only.MatchString(c.name) {
			continue
		}
		pan := panel{title: c.name}
		rows := [][]string{{c.name, "postbus calls/s", "raw calls/s", "postbus × raw", "worse bound"}}
		for _, pt := range c.points {
			lab := &harness.Lab{Systems: peer.Growth(), Broker: p.broker, Progress: func(string, ...any) {}}
			samples, err := lab.Run([]harness.Point{pt.ours, pt.hand}, p.rounds)
			failed = errors.Join(failed, err, lab.Close())
			rep.add(samples)
			g := pt.judge(c.name, samples)
			progressf("  %s: %d\n", c.name, pt.x)
			rep.Growth = append(rep.Growth, g)
			pan.add(g)
			rows = append(rows, []string{strconv.Itoa(g.X), gap(g.Ours), gap(g.Hand), gap(g.Ratio), gap(g.Worse)})
		}
		_, _ = fmt.Fprintln(p.out)
		printRows(p.out, rows, 0)
		drawn = append(drawn, pan)
	}
	return errors.Join(failed, os.WriteFile(p.growth, draw(drawn, rep.Machine), 0o644)) //nolint:gosec // anybody may look at it
}

func (pt growth) judge(name string, samples harness.Samples) grown {
	for p, results := range samples { // a point where calls failed is no point
		samples[p] = slices.DeleteFunc(slices.Clone(results), func(r *harness.Result) bool { return r != nil && r.Errors > r.Calls/100 })
	}
	ratios := harness.Ratios(samples[pt.ours], samples[pt.hand], rate)
	worse, _ := harness.Interval(ratios)
	return grown{
		Curve: name, X: pt.x, Ratio: orNone(harness.Median(ratios)), Worse: orNone(worse),
		Ours: orNone(harness.Median(harness.Values(samples[pt.ours], rate))),
		Hand: orNone(harness.Median(harness.Values(samples[pt.hand], rate))),
	}
}

// orNone is 0 for what could not be measured, since JSON has no other number for it.
func orNone(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return x
}

func gap(x float64) string {
	if x == 0 {
		return "–"
	}
	return number(x)
}
