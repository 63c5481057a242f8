package httpbridge

import (
	"sync"
	"time"
)

// clock looks after a stream now and then: it ends writing to a client that doesn't read, and reading a message that does
// not come to its end, and says something when nothing else is said. One timer for each stream does it all, so that an item
// costs no timer of its own.
type clock struct {
	s *stream

	mu    sync.Mutex
	over  bool
	timer *time.Timer
}

func startClock(s *stream) *clock {
	c := &clock{s: s}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(c.period(), c.tick)
	return c
}

// period is how often the clock looks: so that nothing takes a quarter longer than it may.
func (c *clock) period() time.Duration {
	t := &c.s.x.timeouts
	return max(min(t.Heartbeat, t.Write/4, t.Body/4), time.Millisecond)
}

func (c *clock) tick() {
	t := &c.s.x.timeouts
	now := time.Now()
	quiet := c.look(now)
	if quiet > 0 && quiet < t.Heartbeat { // not before it is time
		c.mu.Lock()
		if !c.over {
			c.timer.Reset(min(c.period(), t.Heartbeat-quiet))
		}
		c.mu.Unlock()
		return
	}
	c.mu.Lock()
	over := c.over
	if !over {
		c.timer.Reset(c.period()) // before it writes, so that somebody looks after that, too
	}
	c.mu.Unlock()
	if !over && quiet >= t.Heartbeat {
		c.s.down.pulse()
	}
}

// look ends what takes too long, and returns for how long nothing was sent, 0 if that doesn't matter.
func (c *clock) look(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.s.x.timeouts
	if c.over {
		return 0
	}
	if u := c.s.up; u != nil && stuck(u.since.Load(), now, t.Body) {
		u.hurry()
	}
	d := c.s.down
	if d == nil {
		return 0
	}
	if stuck(d.since.Load(), now, t.Write) {
		_ = d.rc.SetWriteDeadline(past())
	}
	if d.waits() {
		return 0
	}
	return now.Sub(time.Unix(0, d.last.Load()))
}

func stuck(since int64, now time.Time, limit time.Duration) bool {
	return since != 0 && now.Sub(time.Unix(0, since)) >= limit
}

// stop returns when the clock won't touch the connection any more; only a pulse may be under way, which the downlink's lock
// is for, and which nobody looks after from now on.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
	if c.s.down != nil {
		c.s.down.hurry()
	}
}
