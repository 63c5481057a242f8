package stream

import "time"

// patience is how many intervals a peer may be silent.
const patience = 3

// Watch is the clock of one end: when it has to say that it lives, and when the peer has been silent for too long. The zero
// value never does anything.
type Watch struct {
	every        time.Duration
	beat, heard  time.Time
	active       time.Time
	idle         time.Duration
	probationEnd time.Time // by when more has to come, zero: whenever
}

// NewWatch returns a watch that begins now. An interval of 0 asks for no beats and expects none; an idle time of 0 is none.
func NewWatch(now time.Time, every, idle time.Duration) Watch {
	return Watch{every: every, beat: now, heard: now, active: now, idle: idle}
}

// Heard is called for whatever comes from the peer.
func (w *Watch) Heard(now time.Time) { w.heard, w.probationEnd = now, time.Time{} }

// Probation asks for one more frame within an interval.
func (w *Watch) Probation(now time.Time) { w.probationEnd = now.Add(w.every) }

// Idles reports whether Active is of any use.
func (w *Watch) Idles() bool { return w.idle > 0 }

// Active is called for whatever passes between the users of both ends.
func (w *Watch) Active(now time.Time) { w.active = now }

// Event is what a watch has to say.
type Event uint8

// The events, the most urgent last.
const (
	Nothing  Event = iota
	Beat           // it is time for one
	Idle           // nothing passed for too long
	Unproved       // nothing came within the probation
	Silent         // the peer was silent for too long
)

// Look returns what is due, and in how long to look again; 0 means never. A beat that is due counts as sent.
func (w *Watch) Look(now time.Time) (e Event, next time.Duration) {
	var until time.Time
	due := func(what Event, at time.Time) {
		switch {
		case !now.Before(at):
			e = what
		case until.IsZero() || at.Before(until):
			until = at
		}
	}
	if w.every > 0 {
		due(Beat, w.beat.Add(w.every))
		if e == Beat {
			w.beat = now
			due(Nothing, now.Add(w.every))
		}
	}
	if w.idle > 0 {
		due(Idle, w.active.Add(w.idle))
	}
	if !w.probationEnd.IsZero() {
		due(Unproved, w.probationEnd)
	}
	if w.every > 0 {
		due(Silent, w.heard.Add(patience*w.every))
	}
	if until.IsZero() {
		return e, 0
	}
	return e, until.Sub(now)
}
