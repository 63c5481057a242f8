package harness

import (
	"slices"
	"testing"
)

// TestShuffled: each round has all points, in an order of its own, with those of one load side by side.
func TestShuffled(t *testing.T) {
	var points []Point
	for _, callers := range []int{1, 16, 64} {
		for _, name := range []string{"a", "b", "c"} {
			points = append(points, Point{System: name, Load: Load{Callers: callers}})
		}
	}
	systems, loads := map[string]bool{}, map[int]bool{}
	for range 200 {
		order := shuffled(points)
		for i := 0; i < len(order); i += 3 {
			if order[i].Load != order[i+1].Load || order[i].Load != order[i+2].Load {
				t.Fatalf("%v is torn apart", order)
			}
		}
		for _, p := range points {
			if !slices.Contains(order, p) {
				t.Fatalf("%v lacks %v", order, p)
			}
		}
		systems[order[0].System], loads[order[0].Load.Callers] = true, true
	}
	if len(systems) != 3 || len(loads) != 3 {
		t.Errorf("in 200 rounds the first were only %v, and loads %v", systems, loads)
	}
}

func TestForeign(t *testing.T) {
	before := machine{busy: 10 * tick, all: 100 * tick}
	after := machine{busy: 70 * tick, all: 200 * tick}
	if got := after.foreign(before, 40*tick); got != 0.2 {
		t.Errorf("%v, want 0.2: 60 ticks of 100 were busy, 40 of them ours", got)
	}
	if got := after.foreign(before, 80*tick); got != 0 {
		t.Errorf("%v: others took less than nothing", got)
	}
	if got := (machine{}).foreign(machine{}, tick); got != 0 {
		t.Errorf("%v, where nothing is known", got)
	}
}
