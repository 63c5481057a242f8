package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

// run measures what the arguments ask for, and prints it.
func run(args []string, out io.Writer) (err error) {
	p, err := parse(args)
	if err != nil {
		return err
	}
	p.out = out
	p.printf("%s\n", harness.Machine())
	lab := &harness.Lab{Systems: peer.All(), Broker: p.broker, Progress: progressf, Profiles: p.profiles, Probes: p.probes}
	defer func() { err = errors.Join(err, lab.Close()) }()
	begin := time.Now()
	rep := report{Machine: harness.Machine()}
	var failed error // what could not be measured; the rest is shown all the same
	if p.growth != "" {
		failed = p.measureGrowth(&rep)
	} else {
		if p.figures {
			failed = p.measureFigures(lab, &rep)
		}
		if p.systems {
			failed = errors.Join(failed, p.measureSystems(lab, &rep))
		}
	}
	p.printf("\n%s; others took %.0f %% of the processors (median; %.0f %% at most); %s\n",
		time.Since(begin).Round(time.Second), 100*harness.Median(rep.foreign), 100*slices.Max(append(rep.foreign, 0)), harness.Machine())
	return errors.Join(failed, rep.write(p.json))
}

func (p *plan) printf(format string, args ...any) { _, _ = fmt.Fprintf(p.out, format, args...) }

func progressf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }

// measureFigures measures and prints the table.
func (p *plan) measureFigures(lab *harness.Lab, rep *report) error {
	var chosen []figure
	var points []harness.Point
	for _, f := range (book{p.warm, p.window}).figures() {
		if !p.wants(f) {
			continue
		}
		chosen = append(chosen, f)
		if !built(lab, f.of) || !built(lab, f.than) {
			continue
		}
		for _, pt := range []harness.Point{f.of, f.than} {
			if pt.System != "" && !slices.Contains(points, pt) {
				points = append(points, pt)
			}
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	progressf("figures: %d points, %d rounds\n", len(points), p.rounds)
	samples, err := lab.Run(points, p.rounds)
	rep.add(samples)
	for _, f := range chosen {
		rep.Figures = append(rep.Figures, judge(f, samples))
	}
	p.printf("\nFigures: medians of %d rounds; the worse bound of the median's 95 %% interval decides\n\n", p.rounds)
	printFigures(p.out, rep.Figures)
	return err
}

func built(lab *harness.Lab, p harness.Point) bool {
	return p.System == "" || slices.ContainsFunc(lab.Systems, func(s harness.System) bool { return s.Name == p.System })
}

// wants reports whether -only names a figure, its group, or all of its systems.
func (p *plan) wants(f figure) bool {
	return p.only.MatchString(f.name) || p.only.MatchString(f.group) ||
		p.only.MatchString(f.of.System) && (f.than.System == "" || p.only.MatchString(f.than.System))
}

// measureSystems measures and prints every system by itself.
func (p *plan) measureSystems(lab *harness.Lab, rep *report) error {
	var names []string
	for _, name := range peer.Compared() {
		if p.only.MatchString(name) && built(lab, harness.Point{System: name}) {
			names = append(names, name)
		}
	}
	var points []harness.Point
	for _, l := range p.loads() {
		for _, name := range names {
			points = append(points, harness.Point{System: name, Load: l})
		}
	}
	if len(points) == 0 {
		return nil
	}
	rounds := max(1, p.rounds/3)
	progressf("systems: %d points, %d rounds\n", len(points), rounds)
	samples, err := lab.Run(points, rounds)
	rep.add(samples)
	p.printf("\nSystems: medians of %d rounds; CPU is for each call, of all processes\n", rounds)
	printPeers(p.out, names, samples)
	return err
}

// loads are those of the systems' own tables: callers with the smallest payload, payloads with 64 callers; all of both where
// they were asked for.
func (p *plan) loads() []harness.Load {
	var loads []harness.Load
	for _, size := range p.payloads {
		for _, n := range p.callers {
			if p.narrowed || size == p.payloads[0] || n == 64 {
				loads = append(loads, harness.Load{Callers: n, Size: size, Rate: p.open, Warm: p.warm, Window: p.window})
			}
		}
	}
	return loads
}
