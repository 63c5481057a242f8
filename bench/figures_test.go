package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

// goals are the figures to reach, all of them: a row that is lost, or made easier, shows here.
var goals = strings.TrimSpace(`
plain wire, bytes, against raw nats.go; 16 callers; 1.30; 1.80
plain wire, bytes, against raw nats.go; 64 callers; 1.30; 1.90
plain wire, bytes, against raw nats.go; 256 callers; 1.20; 1.80
plain wire, protobuf, against gRPC-Go; 16 callers; 1.50; 1.90
plain wire, protobuf, against gRPC-Go; 64 callers; 2.00; 2.70
plain wire, protobuf, against gRPC-Go; 256 callers; 2.50; 3.30
plain wire, JSON, against Go kit over NATS; 64 callers; 1.15; 1.45
plain wire, JSON, against Go kit over NATS; 256 callers; 1.40; 1.90
batch frames, protobuf, against raw nats.go; 64 callers; 2.00; 2.60
batch frames, protobuf, against raw nats.go; 256 callers; 2.30; 3.00
batch frames, protobuf, against raw nats.go; 1024 callers; 2.50; 3.50
batch frames, protobuf, against gRPC-Go; 64 callers; 3.50; 4.80
batch frames, protobuf, against gRPC-Go; 256 callers; 5.00; 8.40
CPU of a call, all processes, against raw nats.go; 64 callers; ≤ 0.75; ≤ 0.50
p99 against gRPC-Go; 64 callers; ≤ 0.60; ≤ 0.25
p50 against raw nats.go; 1 caller; ≤ 1.15; ≤ 1.00
whole default stacks against the bare call; 64 callers; 0.75; 0.88
six no-op middlewares, time; ; ≤ 100; ≤ 25.0
six no-op middlewares, allocations; ; ≤ 0.01; ≤ 0.01
allocations of a call, Raw codec, client; 64 callers; ≤ 4.00; ≤ 3.00
allocations of a call, Raw codec, service; 64 callers; ≤ 6.00; ≤ 5.00
1 % of handlers block 5 ms, against all quick; 64 callers; 0.70; 0.90
under 4 busy goroutines, against raw nats.go; 64 callers; 0.90; 1.30
100,000 calls in flight: client; ; ≤ 450; ≤ 300
100,000 calls in flight: client, default stack; ; ≤ 600; ≤ 450
100,000 calls in flight: service; ; ≤ 120; ≤ 80.0
server stream, items of 1 KiB, against raw publish and subscribe; 1 stream; 0.80; 1.00
allocations of an item, client and service; 1 stream; ≤ 6.00; ≤ 4.00
HTTP bridge, JSON, against grpc-gateway; 64 callers; 1.30; 1.50
HTTP bridge, JSON, against grpc-gateway; 256 callers; 1.40; 1.60
HTTP bridge against a net/http JSON service; 64 callers; 0.50; 0.70
embedded, p50; 1 caller; ≤ 20.0; ≤ 10.0
32 MiB transfer: throughput; ; 250; 300
32 MiB transfer: p99 of small calls beside it; ; ≤ 20.0; ≤ 10.0
`)

func TestFigures(t *testing.T) {
	var got []string
	for _, f := range (book{time.Millisecond, time.Second}).figures() {
		if v := judge(f, nil); f.least != 0 {
			got = append(got, fmt.Sprintf("%s; %s; %s; %s", v.Figure, v.At, v.limit(v.Least), v.limit(v.Aim)))
		}
	}
	for g := range strings.SplitSeq(goals, "\n") {
		if !slices.Contains(got, g) {
			t.Errorf("lost: %s", g)
		}
	}
	if want := strings.Count(goals, "\n") + 1; len(got) != want {
		t.Errorf("%d figures, want %d: one that is new belongs into goals, too", len(got), want)
	}
}

// TestFigures_systems: each figure is of systems that are there.
func TestFigures_systems(t *testing.T) {
	l := &harness.Lab{Systems: peer.All()}
	for _, f := range (book{time.Millisecond, time.Second}).figures() {
		for _, p := range []harness.Point{f.of, f.than} {
			if !built(l, p) {
				t.Errorf("%s is of %q, which is none of the systems", f.name, p.System)
			}
		}
	}
	for _, name := range peer.Compared() {
		if !built(l, harness.Point{System: name}) {
			t.Errorf("%q is to be compared and is none of the systems", name)
		}
	}
}

// TestFigures_inDocs: the table in the docs has the rows that the program prints.
func TestFigures_inDocs(t *testing.T) {
	docs, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range (book{time.Millisecond, time.Second}).figures() {
		if !bytes.Contains(docs, []byte("| "+f.name)) {
			t.Errorf("docs/benchmarks.md lacks %q: put the last table there", f.name)
		}
	}
}

func results(rates ...uint64) []*harness.Result {
	var rs []*harness.Result
	for _, n := range rates {
		rs = append(rs, &harness.Result{Calls: n, Seconds: 1})
	}
	return rs
}

// TestJudge: the worse bound decides, which is the lower one of what should be much, and the upper one of what should be little.
func TestJudge(t *testing.T) {
	more := figure{of: harness.Point{System: "a"}, than: harness.Point{System: "b"}, metric: rate, least: 1.2, aim: 1.9, unit: "×"}
	less := more
	less.less, less.least, less.aim = true, 1.9, 1.2
	for _, tc := range []struct {
		name    string
		f       figure
		a       []*harness.Result
		worse   float64
		reached string
	}{
		{"above the aim", more, results(200, 210, 220), 2, "aim"},
		{"above the least", more, results(130, 200, 200), 1.3, "yes"},
		{"one round below", more, results(110, 200, 200), 1.1, "NO"},
		{"below the aim", less, results(100, 110, 120), 1.2, "aim"},
		{"below the most", less, results(100, 110, 180), 1.8, "yes"},
		{"one round above", less, results(100, 110, 200), 2, "NO"},
		{"nothing measured", more, nil, 0, "not built"},
		{"all rounds failed", more, []*harness.Result{nil, nil}, 0, "not measured"},
	} {
		samples := harness.Samples{tc.f.of: tc.a, tc.f.than: results(100, 100, 100)}
		if tc.a == nil {
			delete(samples, tc.f.of)
		}
		v := judge(tc.f, samples)
		if v.Reached != tc.reached || v.Worse != tc.worse {
			t.Errorf("%s: %q by %v, want %q by %v", tc.name, v.Reached, v.Worse, tc.reached, tc.worse)
		}
	}
}

func TestJudge_shown(t *testing.T) {
	v := judge(figure{of: harness.Point{System: "a"}, metric: rate}, harness.Samples{{System: "a"}: results(7)})
	if v.Reached != "" || v.Measured != 7 {
		t.Errorf("%+v: there is nothing to reach", v)
	}
}

func TestPrintRows(t *testing.T) {
	var out bytes.Buffer
	printRows(&out, [][]string{{"what", "×"}, {"a long one", "1"}, {"µ", "123"}}, 1)
	want := "| what       |   × |\n|------------|----:|\n| a long one |   1 |\n| µ          | 123 |\n"
	if out.String() != want {
		t.Errorf("\n%swant\n%s", out.String(), want)
	}
}
