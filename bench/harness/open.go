package harness

import "time"

// pace returns what a caller asks before each call: it waits until the call is due, and says since when its latency counts.
//
// In a closed loop that is now. In an open one, calls are due at fixed times, whether earlier ones have come back or not. Who is
// late sends at once, and the latency counts from when the call should have been sent: what a slow reply holds up is slow as
// well, and is not left out of the picture ("coordinated omission").
func (r *run) pace(caller int) func() time.Time {
	if r.Rate <= 0 {
		return time.Now
	}
	interval := time.Duration(float64(r.Callers) / r.Rate * float64(time.Second))
	due := r.start.Add(interval * time.Duration(caller) / time.Duration(r.Callers))
	return func() time.Time {
		begin := due
		due = due.Add(interval)
		for wait := time.Until(begin); wait > 0 && r.phase.Load() != stopping; wait = time.Until(begin) {
			time.Sleep(min(wait, 100*time.Millisecond)) // a slow pace doesn't hold up the end
		}
		return begin
	}
}
