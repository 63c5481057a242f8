package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

func TestMain(m *testing.M) {
	if played, err := harness.Role(os.Args, slices.Concat(systems(), few()), peer.Broker); played {
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// few are probes that take no time, with the same code as those that do.
func few() []harness.System {
	return []harness.System{peer.Flight("flight-few", "bare", 500), peer.Flight("flight-few-stacks", "whole", 500), peer.RawFlight("flight-few-raw", 500), peer.Transfer("transfer-few", 2<<20, 50*time.Millisecond)}
}

// TestEverySystem runs each for some milliseconds, with calls of all sizes: replies are checked by the systems themselves.
func TestEverySystem(t *testing.T) {
	l := &harness.Lab{Systems: slices.Concat(systems(), few()), Progress: t.Logf}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	crowded := func(s harness.System) bool { // those of growth differ in a number
		return strings.Contains(s.Name, "-endpoints-") && !strings.HasSuffix(s.Name, "-100") ||
			strings.Contains(s.Name, "-instances-") && !strings.HasSuffix(s.Name, "-3") ||
			strings.Contains(s.Name, "-connections-") && !strings.HasSuffix(s.Name, "-2")
	}
	var points []harness.Point
	for _, s := range l.Systems {
		switch {
		case s.Name == "flight" || s.Name == "flight-stacks" || s.Name == "flight-raw" || s.Name == "transfer" || crowded(s):
		case s.Probe != nil:
			points = append(points, harness.Point{System: s.Name})
		default:
			for _, size := range []int{small, 1000, 512 << 10} {
				points = append(points, harness.Point{System: s.Name, Load: harness.Load{Callers: 3, Size: size, Window: 25 * time.Millisecond}})
			}
		}
	}
	samples, err := l.Run(points, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		r := samples[p][0]
		if p.Load == (harness.Load{}) {
			if len(r.Values) < 2 {
				t.Errorf("%s measured only %v", p.System, r.Values)
			}
			continue
		}
		if r.All == 0 || r.Errors > 0 {
			t.Errorf("%s, %d bytes: %d calls, %d errors, %s", p.System, p.Load.Size, r.All, r.Errors, r.Error)
		}
	}
}

// TestEveryBroker: what calls through a broker does so over TLS, and under permissions.
func TestEveryBroker(t *testing.T) {
	for _, kind := range peer.Brokers() {
		l := &harness.Lab{Systems: systems(), Broker: kind, Progress: t.Logf}
		var points []harness.Point
		for _, name := range []string{"postbus", "raw", "micro", "gokit", "bridge", "stacks-whole"} {
			points = append(points, harness.Point{System: name, Load: harness.Load{Callers: 3, Size: small, Window: 25 * time.Millisecond}})
		}
		samples, err := l.Run(points, 1)
		if err = errors.Join(err, l.Close()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, p := range points {
			if r := samples[p][0]; r == nil || r.All == 0 || r.Errors > 0 {
				t.Errorf("%s: %s: %+v", kind, p.System, r)
			}
		}
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "all.json")
	err := run([]string{"-quick", "-only", `^(postbus|raw)$`, "-rounds", "1", "-callers", "2", "-payloads", "20,1024", "-json", file}, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| plain wire, bytes, against raw nats.go ", "20 B, 2 callers", "1 KiB, 2 callers", "| raw ", "| postbus ", "processors",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "gRPC") {
		t.Error("measured what -only leaves out")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all report
	if err := json.Unmarshal(text, &all); err != nil || len(all.Figures) == 0 || len(all.Samples) == 0 || all.Samples[0].System == "" {
		t.Errorf("%v, %s", err, text)
	}
}

func TestRun_open(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-quick", "-only", `^raw$`, "-open", "500"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "500 calls/s at fixed times") || strings.Contains(out.String(), "at least") {
		t.Errorf("want tables of an open loop, and no figures, which are of closed ones:\n%s", out.String())
	}
}

func TestRun_growth(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "growth.svg")
	if err := run([]string{"-quick", "-only", `^connections`, "-rounds", "1", "-growth", file}, &out); err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(picture, []byte("connections of the client")) {
		t.Errorf("%v, %s", err, picture)
	}
	if !strings.Contains(out.String(), "| connections of the client") || strings.Contains(out.String(), "payload") {
		t.Error(out.String())
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{
		{"-callers", "1,x"}, {"-payloads", "0"}, {"-only", "("}, {"-rounds", "0"}, {"-broker", "rabbit"}, {"-open", "-1"}, {"-window", "0s"}, {"-nothing"}, {"nothing"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q were taken", args)
		}
	}
	p, err := parse([]string{"-quick", "-callers", "1, 8"})
	if err != nil || !slices.Equal(p.callers, []int{1, 8}) || p.rounds != 3 {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = parse([]string{"-quick", "-rounds", "7", "-window", "1s"})
	if err != nil || p.rounds != 7 || p.window != time.Second {
		t.Errorf("-quick won over what was asked for: %+v, %v", p, err)
	}
}

func TestLoads(t *testing.T) {
	p, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.loads()); n != 10 {
		t.Errorf("%d loads, want 10: five callers with the smallest payload, six payloads with 64 callers, one of them the same", n)
	}
	if p, _ = parse([]string{"-tables", "systems"}); p.figures || !p.systems {
		t.Error("figures, where only systems were asked for")
	}
	if p, _ = parse([]string{"-callers", "1,2", "-payloads", "20,30,40"}); len(p.loads()) != 6 {
		t.Errorf("%d loads, want all of what was asked for: 6", len(p.loads()))
	}
}
