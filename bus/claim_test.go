package bus

import (
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// TestDenialSettled: complaints about frames are on their way for as long as a busy machine may take, which a clock alone does
// not tell.
func TestDenialSettled(t *testing.T) {
	start := time.Now()
	late := start.Add(time.Second)
	for _, tc := range []struct {
		name   string
		looks  int
		frames bool
		now    time.Time
		want   bool
	}{
		{"a call, soon", framesLooks, false, start.Add(claimQuiet - 1), false},
		{"a call, later", 1, false, start.Add(claimQuiet), true},
		{"frames, soon", framesLooks, true, start.Add(framesQuiet - 1), false},
		{"frames, later", framesLooks, true, start.Add(framesQuiet), true},
		{"frames, much later, and hardly looked at", framesLooks - 1, true, late, false},
	} {
		d := denial{n: 1, first: start, last: start, looks: tc.looks}
		assert.Equal(t, d.settled(tc.now, tc.frames), tc.want, tc.name)
	}
}
