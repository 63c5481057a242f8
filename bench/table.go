package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"postbus.example/bench/harness"
)

// verdict is a figure with what was measured.
type verdict struct {
	Figure   string  `json:"figure"`
	At       string  `json:"at,omitempty"`
	Unit     string  `json:"unit,omitempty"`
	Least    float64 `json:"least,omitempty"`
	Aim      float64 `json:"aim,omitempty"`
	Less     bool    `json:"less_is_better,omitempty"`
	Built    bool    `json:"built"`
	Rounds   int     `json:"rounds,omitempty"`
	Measured float64 `json:"measured,omitempty"`
	Worse    float64 `json:"worse,omitempty"` // bound of the confidence interval
	Reached  string  `json:"reached"`
}

// judge holds the worse bound of a figure's interval against what is to be reached.
func judge(f figure, samples harness.Samples) verdict {
	v := verdict{Figure: f.name, At: f.at, Unit: f.unit, Least: f.least, Aim: f.aim, Less: f.less, Reached: "not built"}
	values := harness.Values(samples[f.of], f.metric)
	if f.than != (harness.Point{}) {
		values = harness.Ratios(samples[f.of], samples[f.than], f.metric)
	}
	if len(values) == 0 {
		if len(samples[f.of]) > 0 {
			v.Reached = "not measured" // the errors say why
		}
		return v
	}
	low, high := harness.Interval(values)
	v.Built, v.Rounds, v.Measured, v.Worse = true, len(values), harness.Median(values), low
	if f.less {
		v.Worse = high
	}
	v.Reached = f.reached(v.Worse)
	return v
}

func (f figure) reached(worse float64) string {
	passes := func(limit float64) bool {
		if f.less {
			return worse <= limit
		}
		return worse >= limit
	}
	switch {
	case f.least == 0:
		return ""
	case passes(f.aim):
		return "aim"
	case passes(f.least):
		return "yes"
	}
	return "NO"
}

// printFigures writes the table.
func printFigures(w io.Writer, verdicts []verdict) {
	rows := [][]string{{"figure", "at", "at least", "aim", "measured", "worse bound", "reached"}}
	for _, v := range verdicts {
		if !v.Built {
			rows = append(rows, []string{v.Figure, v.At, v.limit(v.Least), v.limit(v.Aim), "", "", v.Reached})
			continue
		}
		rows = append(rows, []string{v.Figure, v.At, v.limit(v.Least), v.limit(v.Aim), number(v.Measured) + unit(v.Unit), number(v.Worse), v.Reached})
	}
	printRows(w, rows, 2)
}

func (v verdict) limit(x float64) string {
	switch {
	case x == 0:
		return ""
	case v.Less:
		return "≤ " + number(x)
	}
	return number(x)
}

func unit(u string) string {
	if u == "" || u == "×" {
		return u
	}
	return " " + u
}

// number has three digits that count.
func number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "–"
	case a >= 100 || a == 0:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// printRows writes columns as wide as they must be, a table in Markdown; the first few are texts and stand left.
func printRows(w io.Writer, rows [][]string, texts int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			width := widths[i]
			if i < texts {
				width = -width
			}
			_, _ = fmt.Fprintf(w, "| %*s ", width, cell)
		}
		_, _ = fmt.Fprintln(w, "|")
		if n == 0 {
			for i, width := range widths {
				_, _ = fmt.Fprintf(w, "|%s", rule(width, i < texts))
			}
			_, _ = fmt.Fprintln(w, "|")
		}
	}
}

func rule(width int, text bool) string {
	line := slices.Repeat([]byte{'-'}, width+2)
	if !text {
		line[width+1] = ':'
	}
	return string(line)
}

// printPeers writes one table for each load: every system's own figures, and its throughput against that of the first.
func printPeers(w io.Writer, systems []string, samples harness.Samples) {
	loads := map[harness.Load]bool{}
	for p := range samples {
		loads[p.Load] = true
	}
	order := slices.SortedFunc(maps.Keys(loads), func(a, b harness.Load) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Callers, b.Callers))
	})
	for _, l := range order {
		_, _ = fmt.Fprintf(w, "\n%s, %s%s\n\n", bytesText(l.Size), callers(l.Callers), rateText(l.Rate))
		rows := [][]string{{"system", "calls/s", "× first", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "client", "service", "broker", "allocs client", "service"}}
		var first []*harness.Result
		for _, name := range systems {
			results := samples[harness.Point{System: name, Load: l}]
			if len(results) == 0 {
				continue
			}
			if first == nil {
				first = results
			}
			rows = append(rows, peerRow(name, results, first))
		}
		printRows(w, rows, 1)
	}
}

func peerRow(name string, results, first []*harness.Result) []string {
	m := func(metric metric) string { return number(harness.Median(harness.Values(results, metric))) }
	each := func(of func(*harness.Result) harness.Usage) metric {
		return func(r *harness.Result) float64 { return of(r).CPU.Seconds() * 1e6 / float64(max(r.All, 1)) }
	}
	return []string{
		name, m(rate), number(harness.Median(harness.Ratios(results, first, rate))),
		m(p50micros),
		m(func(r *harness.Result) float64 { return r.P99.Seconds() * 1e6 }),
		m(func(r *harness.Result) float64 { return r.P999.Seconds() * 1e6 }),
		m(func(r *harness.Result) float64 { return r.CPU().Seconds() * 1e6 }),
		m(each(func(r *harness.Result) harness.Usage { return r.Client })),
		m(each(func(r *harness.Result) harness.Usage { return r.Service })),
		m(each(func(r *harness.Result) harness.Usage { return r.Broker })),
		m(clientAllocs), m(serviceAllocs),
	}
}

func bytesText(n int) string {
	if n >= 1024 {
		return strconv.Itoa(n/1024) + " KiB"
	}
	return strconv.Itoa(n) + " B"
}

func rateText(rate float64) string {
	if rate == 0 {
		return ""
	}
	return fmt.Sprintf(", %g calls/s at fixed times (open loop)", rate)
}
