// Package assert is the test vocabulary of this module: a few checks that stop a test at the first lie.
// It is for tests only and imports nothing outside the standard library.
package assert

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Equal fails the test unless got and want are deeply equal.
func Equal[T any](t testing.TB, got, want T, what ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%sgot  %#v\nwant %#v", label(what), got, want)
	}
}

// True fails the test unless ok.
func True(t testing.TB, ok bool, what ...string) {
	t.Helper()
	if !ok {
		t.Fatalf("%sis false, must be true", label(what))
	}
}

// NoError fails the test if err is not nil.
func NoError(t testing.TB, err error, what ...string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%sunexpected error: %v", label(what), err)
	}
}

// ErrorIs fails the test unless errors.Is(err, target).
func ErrorIs(t testing.TB, err, target error, what ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%sgot error  %v\nwant error %v", label(what), err, target)
	}
}

// Contains fails the test unless s contains each of the parts.
func Contains(t testing.TB, s string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			t.Fatalf("%q does not contain %q", s, p)
		}
	}
}

// Eventually polls cond until it holds, and fails the test when it does not within ten seconds.
func Eventually(t testing.TB, cond func() bool, what ...string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%sdid not come true within 10s", label(what))
		}
	}
}

func label(what []string) string {
	if len(what) == 0 {
		return ""
	}
	return strings.Join(what, " ") + ": "
}
