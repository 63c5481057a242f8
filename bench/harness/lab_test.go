package harness_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postbus.example/bench/harness"
)

func TestMain(m *testing.M) {
	played, err := harness.Role(os.Args, systems(), func(kind string) (string, error) { return "the " + kind + "broker", nil })
	if played {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// systems are what this test's processes play.
func systems() []harness.System {
	call := func(size int) harness.Call {
		return func(context.Context) error {
			time.Sleep(time.Millisecond)
			if size == 0 {
				return errors.New("nothing to call with")
			}
			return nil
		}
	}
	dial := func(want string) func(string) (func(int) harness.Call, error) {
		return func(addr string) (func(int) harness.Call, error) {
			if addr != want {
				return nil, fmt.Errorf("dialled %q, want %q", addr, want)
			}
			return call, nil
		}
	}
	return []harness.System{
		{Name: "served", Serve: func(url string) (string, error) { return "served" + url, nil }, Dial: dial("served")},
		{Name: "brokered", Broker: true, Serve: func(url string) (string, error) { return url + "!", nil }, Dial: dial("the broker!")},
		{Name: "alone", Dial: dial("")},
		{Name: "probe", Probe: func(string) (map[string]float64, error) { return map[string]float64{"pid": float64(os.Getpid())}, nil }},
		{Name: "unserved", Serve: func(string) (string, error) { return "", errors.New("no port") }, Dial: dial("")},
		{Name: "dying", Dial: func(string) (func(int) harness.Call, error) {
			return func(int) harness.Call {
				return func(context.Context) error {
					fmt.Fprintln(os.Stderr, "what killed it")
					os.Exit(3)
					return nil
				}
			}, nil
		}},
	}
}

func lab(t *testing.T) *harness.Lab {
	t.Helper()
	l := &harness.Lab{Systems: systems(), Progress: t.Logf}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !t.Failed() {
			t.Log(err)
		}
	})
	return l
}

func point(system string) harness.Point {
	return harness.Point{System: system, Load: harness.Load{Callers: 2, Size: 1, Window: 20 * time.Millisecond}}
}

func TestLab(t *testing.T) {
	points := []harness.Point{point("served"), point("brokered"), point("alone"), {System: "probe"}}
	samples, err := lab(t).Run(points, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points[:3] {
		for _, r := range samples[p] {
			if r.Calls == 0 || r.Errors != 0 || r.Client.CPU == 0 {
				t.Errorf("%s: %+v", p.System, r)
			}
		}
	}
	if samples[points[0]][0].Broker != (harness.Usage{}) {
		t.Error("a broker was charged to who has none")
	}
	pids := samples[points[3]]
	if len(pids) != 2 || pids[0].Values["pid"] == pids[1].Values["pid"] {
		t.Error("two probes share a process")
	}
}

func TestLab_broker(t *testing.T) {
	l := lab(t)
	l.Broker = "other "
	_, err := l.Run([]harness.Point{point("brokered")}, 1)
	if err == nil || !strings.Contains(err.Error(), `"the other broker!"`) {
		t.Errorf("%v: which broker was it?", err)
	}
}

func TestLab_fewProbes(t *testing.T) {
	l := lab(t)
	l.Probes = 1
	samples, err := l.Run([]harness.Point{point("alone"), {System: "probe"}}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if n, m := len(samples[point("alone")]), len(samples[harness.Point{System: "probe"}]); n != 3 || m != 1 {
		t.Errorf("%d rounds and %d probes, want 3 and 1", n, m)
	}
}

// TestLab_failures: who fails is named with the reason, a round lacks its result, and the others are measured.
func TestLab_failures(t *testing.T) {
	for _, tc := range []struct{ system, says string }{
		{"unserved", "no port"},
		{"dying", "what killed it"},
		{"unknown", "no such system"},
	} {
		samples, err := lab(t).Run([]harness.Point{point(tc.system), point("alone")}, 2)
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), tc.system) {
			t.Errorf("%s: %v, want one that says %q", tc.system, err, tc.says)
		}
		if failed := samples[point(tc.system)]; len(failed) != 2 || failed[0] != nil || failed[1] != nil {
			t.Errorf("%s: %v", tc.system, failed)
		}
		if len(harness.Values(samples[point("alone")], (*harness.Result).Rate)) != 2 {
			t.Errorf("%s: kept others from being measured", tc.system)
		}
	}
}

// TestLab_errors: calls that fail are counted and told, and are no failure of the run.
func TestLab_errors(t *testing.T) {
	p := point("alone")
	p.Load.Size = 0
	l, said := lab(t), ""
	l.Progress = func(format string, args ...any) { said += fmt.Sprintf(format, args...) }
	samples, err := l.Run([]harness.Point{p}, 1)
	if err != nil || samples[p][0].Errors == 0 || !strings.Contains(said, "nothing to call with") {
		t.Errorf("%v, %+v, %q", err, samples[p][0], said)
	}
}

func TestLab_profiles(t *testing.T) {
	l := lab(t)
	l.Profiles = t.TempDir()
	if _, err := l.Run([]harness.Point{point("served")}, 2); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(l.Profiles, "served-2-1-*.pprof"))
	if err != nil || len(files) != 2 {
		t.Errorf("%q, %v: want those of client and service", files, err)
	}
}

func TestRole_none(t *testing.T) {
	for _, args := range [][]string{nil, {"bench"}, {"bench", "-quick"}, {"bench", "role"}} {
		if played, err := harness.Role(args, systems(), nil); played || err != nil {
			t.Errorf("%q played a role: %v", args, err)
		}
	}
}
