package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.example/bench/peer"
)

// plan is what the flags ask for.
type plan struct {
	only     *regexp.Regexp
	rounds   int
	callers  []int
	payloads []int
	open     float64
	warm     time.Duration
	window   time.Duration
	figures  bool // print the table of figures
	systems  bool // print the systems' own tables
	broker   string
	json     string
	growth   string
	out      io.Writer
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
	fs.StringVar(&p.broker, "broker", "plain", "how the nats-server is set up: "+strings.Join(peer.Brokers(), ", "))
	tables := fs.String("tables", "figures,systems", "which of them to measure")
	fs.StringVar(&p.json, "json", "", "write all results to this file")
	fs.StringVar(&p.growth, "growth", "", "measure what happens while one thing grows, and nothing else; the picture goes to this file")
	fs.StringVar(&p.profiles, "profiles", "", "write CPU profiles of all processes, of the last round, to this directory")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	var err1, err2, err3 error
	p.only, err1 = regexp.Compile(*only)
	p.callers, err2 = numbers(*callers)
	p.payloads, err3 = numbers(*payloads)
	p.figures, p.systems = strings.Contains(*tables, "figures") && p.open == 0, strings.Contains(*tables, "systems") // figures are of closed loops
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	p.narrowed = given["callers"] || given["payloads"]
	if *quick {
		p.hasten(given)
	}
	var err4 error
	if !slices.Contains(peer.Brokers(), p.broker) || p.rounds < 1 || p.open < 0 || p.window <= 0 || fs.NArg() > 0 {
		err4 = errors.New("the broker is one of those named, rounds and windows are above 0, rates not below, and there are flags only")
	}
	return p, errors.Join(err1, err2, err3, err4)
}

// hasten is -quick, which leaves alone what was given.
func (p *plan) hasten(given map[string]bool) {
	p.probes, p.warm = 1, 30*time.Millisecond
	if !given["rounds"] {
		p.rounds = 3
	}
	if !given["window"] {
		p.window = 70 * time.Millisecond
	}
	if !p.narrowed {
		p.callers, p.payloads = []int{1, 64}, []int{small}
	}
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
