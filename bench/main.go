// Bench measures Postbus and its peers in one run: client, service and nats-server are processes of their own on the loopback
// interface, all systems take turns in shuffled rounds, and ratios are taken within a round. It prints the table of figures
// that Postbus has to reach, and then every system's own.
//
//	go -C bench run .                                   # all, about a quarter of an hour
//	go -C bench run . -quick                            # a first impression, under a minute
//	go -C bench run . -only 'against raw' -rounds 25    # figures by name
//	go -C bench run . -only '^(postbus|raw|grpc)$' -callers 1,64 -payloads 1024
//
// docs/benchmarks.md says how to read what it prints.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
	"postbus.example/embedded"
)

func main() {
	played, err := harness.Role(os.Args, peer.All(), broker)
	if !played {
		err = run(os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// broker is a nats-server with its own defaults.
func broker() (string, error) {
	s, err := embedded.Start()
	if err != nil {
		return "", err
	}
	return s.URL(), nil
}

// plan is what the flags ask for.
type plan struct {
	only     *regexp.Regexp
	rounds   int
	callers  []int
	payloads []int
	open     float64
	warm     time.Duration
	window   time.Duration
	json     string
	profiles string
	probes   int
	narrowed bool // callers or payloads were given
}

func parse(args []string) (*plan, error) {
	p := &plan{warm: 100 * time.Millisecond, window: 300 * time.Millisecond}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "few short rounds: a first impression, not a measurement")
	fs.IntVar(&p.rounds, "rounds", 15, "rounds of the figures; the systems' own tables take a third of them")
	only := fs.String("only", "", "a regular expression: figures and systems by their names, figures by those of all their systems")
	callers := fs.String("callers", "1,16,64,256,1024", "callers at once, for the systems' own tables")
	payloads := fs.String("payloads", "20,1024,4096,16384,65536,524288", "bytes, for the systems' own tables (with 64 callers, unless -callers is given)")
	fs.Float64Var(&p.open, "open", 0, "calls a second at fixed times instead of as fast as replies come; latency counts from when a call was due")
	fs.DurationVar(&p.window, "window", p.window, "how long each point is measured in a round")
	fs.StringVar(&p.json, "json", "", "write all results to this file")
	fs.StringVar(&p.profiles, "profiles", "", "write CPU profiles of all processes, of the last round, to this directory")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	var err1, err2, err3 error
	p.only, err1 = regexp.Compile(*only)
	p.callers, err2 = numbers(*callers)
	p.payloads, err3 = numbers(*payloads)
	fs.Visit(func(f *flag.Flag) { p.narrowed = p.narrowed || f.Name == "callers" || f.Name == "payloads" })
	if *quick {
		p.rounds, p.probes, p.warm, p.window = 3, 1, 30*time.Millisecond, 70*time.Millisecond
		if !p.narrowed {
			p.callers, p.payloads = []int{1, 64}, []int{small}
		}
	}
	return p, errors.Join(err1, err2, err3)
}

func numbers(list string) ([]int, error) {
	var ns []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no list of numbers above 0", list)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func run(args []string) (err error) {
	p, err := parse(args)
	if err != nil {
		return err
	}
	fmt.Println(harness.Machine())
	lab := &harness.Lab{Systems: peer.All(), Progress: progress, Profiles: p.profiles, Probes: p.probes}
	defer func() { err = errors.Join(err, lab.Close()) }()
	begin := time.Now()
	rep := report{Machine: harness.Machine()}
	var failed error // what could not be measured; the rest is shown all the same
	if p.open == 0 {
		failed = p.figures(lab, &rep)
	}
	failed = errors.Join(failed, p.peers(lab, &rep))
	fmt.Printf("\n%s; others took %.0f %% of the processors (median; %.0f %% at most); %s\n",
		time.Since(begin).Round(time.Second), 100*harness.Median(rep.foreign), 100*slices.Max(append(rep.foreign, 0)), harness.Machine())
	return errors.Join(failed, rep.write(p.json))
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }

// figures measures and prints the table.
func (p *plan) figures(lab *harness.Lab, rep *report) error {
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
	progress("figures: %d points, %d rounds\n", len(points), p.rounds)
	samples, err := lab.Run(points, p.rounds)
	rep.add(samples)
	for _, f := range chosen {
		rep.Figures = append(rep.Figures, judge(f, samples))
	}
	fmt.Printf("\nFigures: medians of %d rounds; the worse bound of the median's 95 %% interval decides\n\n", p.rounds)
	printFigures(os.Stdout, rep.Figures)
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

// peers measures and prints every system by itself.
func (p *plan) peers(lab *harness.Lab, rep *report) error {
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
	progress("systems: %d points, %d rounds\n", len(points), rounds)
	samples, err := lab.Run(points, rounds)
	rep.add(samples)
	fmt.Printf("\nSystems: medians of %d rounds; CPU is for each call, of all processes\n", rounds)
	printPeers(os.Stdout, names, samples)
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

// report is all that was measured, for -json.
type report struct {
	Machine string    `json:"machine"`
	Figures []verdict `json:"figures"`
	Samples []sample  `json:"samples"`
	foreign []float64
}

type sample struct {
	harness.Point
	Rounds []*harness.Result `json:"rounds"`
}

func (r *report) add(samples harness.Samples) {
	for p, results := range samples {
		r.Samples = append(r.Samples, sample{p, results})
		r.foreign = append(r.foreign, harness.Values(results, func(r *harness.Result) float64 { return r.Foreign })...)
	}
}

func (r *report) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644) //nolint:gosec // anybody may read it
}
