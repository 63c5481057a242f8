package endpoint

import "time"

// A stack of middlewares that each look at the clock on each call pays more for that than for their work. So the time that
// one has read is handed on inwards, from who calls next at once to who stands directly inside of it. Whoever knows nothing
// of this, and may wait for all we know, breaks the line: the next one inside looks at the clock itself.

// Now returns the time, to a middleware or transport that goes on at once: it calls next without waiting, or looks again.
// It is a reading of the clock of its own, or that of who stands directly outside and went on at once, too. A second Now
// is a reading in any case, and so is one after next returned.
func (c *Call) Now() time.Time {
	if c.told() {
		c.place.clock++
		return c.received.Add(c.since)
	}
	now := time.Now()
	if !c.received.IsZero() {
		c.tell(now, c.place.at+1)
	}
	return now
}

// AtOnce hands the time on without looking at it. It is for middleware that calls next at once, and has no use for the time.
func (c *Call) AtOnce() {
	if c.told() {
		c.place.clock++
	}
}

// SetNow tells the outermost middleware of a call, which has been received, what time it is. It is for transports.
func (c *Call) SetNow(now time.Time) { c.tell(now, c.place.at) }

// told reports whether the time is handed to who stands here.
func (c *Call) told() bool { return int(c.place.clock) == int(c.place.at)+1 }

// tell hands the time to who stands at a place.
func (c *Call) tell(now time.Time, at uint16) { c.since, c.place.clock = now.Sub(c.received), at+1 }

// hush takes the time back from who stands inside, after something that may have taken long.
func (c *Call) hush() { c.place.clock = 0 }
