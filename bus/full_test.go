package bus_test

import "os"

// full reports whether heavy tests run whole. CI runs a part of them, which each of them logs.
func full() bool { return os.Getenv("POSTBUS_FULL") == "1" }

// scaled is part, or the whole of a full run.
func scaled(part, whole int) int {
	if full() {
		return whole
	}
	return part
}
