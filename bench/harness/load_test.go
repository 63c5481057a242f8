package harness_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/bench/harness"
)

func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got > want || got < want-want/50 {
		t.Errorf("%s is %v, want about %v", what, got, want)
	}
}

func TestDrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := harness.Drive(harness.Load{Callers: 4, Warm: 95 * time.Millisecond, Window: time.Second}, func(context.Context) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		if r.Calls != 400 {
			t.Errorf("%d calls in a second, want 400: 4 callers of 10 ms", r.Calls)
		}
		if r.All != 440 { // the last are under way when the window ends, and counted as what was paid for
			t.Errorf("%d calls in all, want 440", r.All)
		}
		if r.Rate() != 400 {
			t.Errorf("%v calls a second", r.Rate())
		}
		about(t, "p50", r.P50, 10*time.Millisecond)
		about(t, "p99.9", r.P999, 10*time.Millisecond)
	})
}

// TestDrive_open: one call of 600 ms holds up the next 59 at a hundred a second. Each of them is as late as it is.
func TestDrive_open(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		r := harness.Drive(harness.Load{Callers: 1, Rate: 100, Warm: 5 * time.Millisecond, Window: 1010 * time.Millisecond}, func(context.Context) error {
			if calls.Add(1) == 2 { // the first one is for warming up
				time.Sleep(600 * time.Millisecond)
			}
			return nil
		})
		if r.Calls != 101 {
			t.Errorf("%d calls, want 101: a hundred a second, with those that were late", r.Calls)
		}
		about(t, "p99.9", r.P999, 600*time.Millisecond)
		about(t, "p99", r.P99, 590*time.Millisecond)
		about(t, "p50", r.P50, 100*time.Millisecond) // of 60 that were late, and 41 in time
	})
}

func TestDrive_openSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at [4]atomic.Int64
		var n atomic.Int64
		harness.Drive(harness.Load{Callers: 4, Rate: 4, Window: 900 * time.Millisecond}, func(context.Context) error {
			at[n.Add(1)-1].Store(int64(time.Since(begin)))
			return nil
		})
		for i := range at {
			if got, want := time.Duration(at[i].Load()), time.Duration(i)*250*time.Millisecond; got != want {
				t.Errorf("call %d left at %v, want %v", i, got, want)
			}
		}
	})
}

func TestDrive_errors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := harness.Drive(harness.Load{Callers: 2, Window: time.Second}, func(context.Context) error {
			time.Sleep(time.Millisecond)
			return errors.New("no")
		})
		if r.Calls != 0 || r.Errors == 0 || r.Error != "no" {
			t.Errorf("%d calls, %d errors, %q", r.Calls, r.Errors, r.Error)
		}
	})
}

func TestDrive_hogs(t *testing.T) {
	r := harness.Drive(harness.Load{Callers: 1, Hogs: 2, Window: 20 * time.Millisecond}, func(context.Context) error { return nil })
	if r.Client.CPU == 0 {
		t.Error("hogs cost nothing")
	}
}
