package bus

import (
	"slices"
	"time"

	"postbus.example/internal/wire"
)

// A complaint of the broker is matched with the newest of the calls that were sent to its subject and have neither a reply nor
// an ack. That they were not executed is certain only where there are as many complaints as calls that they may be about:
//
//   - Nobody else publishes on the connection. Who was given it (Conn) may, but no batch frames.
//   - No call ended of itself meanwhile, by its deadline or because its caller left. The complaint may be about that one.
//   - The connection is the one that the calls were sent on.
//
// A call that nobody heard of for claimable is too old: whether a connection is alive is known sooner than that. Complaints
// come one at a time, so where there are fewer than calls a moment is left to those that are on their way.

const (
	claimable  = 10 * time.Second
	claimPause = time.Millisecond      // between two looks for the same calls, at least
	claimQuiet = 3 * time.Millisecond  // without another complaint, no more are on their way
	claimMost  = 8 * time.Millisecond  // from the first on
	claimRest  = 20 * time.Millisecond // between two looks, at most: the first may just have been slow

	framesQuiet = 50 * time.Millisecond  // the same for batch frames, of which no more are sent since the first complaint
	framesMost  = 500 * time.Millisecond // and whose calls go alone once it is certain that all were denied
	framesLooks = 16                     // without another one, at least: on a busy machine those who bring it wait as the looks do
)

// denial is how often the broker complained about a subject, and when first and last.
type denial struct {
	n           int
	first, last time.Time
	looks       int // since the last one
}

// settled reports whether those that are on their way have arrived.
func (d *denial) settled(now time.Time, frames bool) bool {
	quiet, most := claimQuiet, claimMost
	if frames {
		if quiet, most = framesQuiet, framesMost; d.looks < framesLooks {
			return false
		}
	}
	return now.Sub(d.last) >= quiet || now.Sub(d.first) >= most
}

// claim looks for the call that a complaint is about.
func (d *denials) claim(subject string) {
	if d.bus.mux.inUse() == 0 {
		return
	}
	now := time.Now()
	d.mu.Lock()
	c := d.open[subject]
	if c == nil {
		c = &denial{first: now}
		d.open[subject] = c
	}
	c.n++
	c.last, c.looks = now, 0
	if d.busy {
		d.mu.Unlock()
		return
	}
	d.busy = true
	if wait := d.pause - now.Sub(d.matched); wait > 0 {
		d.timer = reset(d.timer, wait, d.match)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.match()
}

// forget drops the complaints of the last connection: its calls know already that it is lost.
func (d *denials) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.era++
	clear(d.open)
}

// suspect is a call that a complaint may be about.
type suspect struct {
	slot   *slot
	secret uint64
	sent   time.Time
}

// match takes the complaints that came so far, then looks for their calls: it finds at least those that they are about.
func (d *denials) match() {
	start := time.Now()
	d.mu.Lock()
	era := d.era
	counts := make(map[string]int, len(d.open))
	for subject, c := range d.open {
		counts[subject] = c.n
	}
	d.mu.Unlock()
	found := d.bus.mux.sentTo(counts, start)
	stale := d.bus.reconnects.Load() != d.bus.nc.Stats().Reconnects // not sooner: what was found is of this connection, too
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.era != era {
		clear(counts)
	}
	now := time.Now()
	for subject, n := range counts {
		c, calls, frames := d.open[subject], found[subject], wire.IsBatchSubject(subject)
		c.looks++
		if n < len(calls) && !c.settled(now, frames) {
			continue
		}
		shared := d.shared.Load() && !frames // where nobody but the bus publishes
		certain := n >= len(calls) && !stale && !shared && !d.ghosts.since(subject, claimable)
		d.end(calls, n, certain)
		if c.n -= n; c.n == 0 {
			delete(d.open, subject)
		}
		c.first = now
	}
	d.matched, d.pause = now, min(8*now.Sub(start), claimRest) // a big table is not worth all of a processor
	if d.busy = len(d.open) > 0; d.busy {
		d.timer = reset(d.timer, max(d.pause, claimPause), d.match)
	}
}

// end tells the n newest calls.
func (d *denials) end(calls []suspect, n int, certain bool) {
	verdict := maybeDenied
	if certain {
		verdict = denied
	}
	slices.SortFunc(calls, func(a, b suspect) int { return b.sent.Compare(a.sent) })
	for _, c := range calls[:min(n, len(calls))] {
		c.slot.tell(c.secret, verdict)
		d.bus.mux.exhume(c.slot, c.secret)
	}
}

// sentTo returns the calls to the subjects that nothing was heard of, those whose callers left included.
func (m *replyMux) sentTo(subjects map[string]int, now time.Time) map[string][]suspect {
	found := map[string][]suspect{}
	for _, s := range *m.table.Load() {
		s.mu.Lock()
		if s.sends.to != "" && s.secret != 0 && s.ack == nil && !s.given && now.Sub(s.sends.sent) < claimable {
			if _, ok := subjects[s.sends.to]; ok {
				found[s.sends.to] = append(found[s.sends.to], suspect{s, s.secret, s.sends.sent})
				if s.batch != nil {
					s.batch.by.terms.refused(refusedLong)
				}
			}
		}
		s.mu.Unlock()
	}
	return found
}
