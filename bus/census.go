package bus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// A gather needs to know who is there. Everybody is asked, at most once in censusAge, and whoever gathers meanwhile shares the
// answers: an instance is called as soon as it has answered. That all have is known for certain by a silence alone, which is
// long. So where everybody who was known before has answered again, a short one is enough.
//
//	asked ──► they answer ──► all who were known did ──► a short silence ─────► enough: who is there is known
//	               │                                                               ▲          │
//	               └──► some who were known do not ──► the long silence ───────────┘          └──► censusAge later:
//	                                                   these are doubtful, and called           whoever gathers asks again
//	                                                   all the same
//
// Only of those who are doubtful the broker's word that nobody is there means that they have left.

const (
	censusAge   = time.Second            // for how long an answer is good
	staleAge    = 250 * time.Millisecond // of one that was wrong
	censusQuiet = 10 * time.Millisecond  // the short silence, or twice as long as the answers took
	doubtAge    = time.Minute            // of the last word of one that does not answer: it is forgotten then

	maxResidents = 1 << 14
)

// census is who serves what. The zero value is ready to use. Its lock is the innermost.
type census struct {
	mu     sync.Mutex
	known  map[resident]*household
	last   *asking
	barred uint64 // the epoch in which the broker did not let us ask
}

// resident is the name of one instance of one service.
type resident struct{ service, id string }

// household is what a resident serves.
type household struct {
	seats []seat
	seen  time.Time // when it last said anything
	by    *asking   // to which it said so
}

type seat struct {
	subject, queue string
	direct         bool // it takes direct calls
}

// asking is one question to all.
type asking struct {
	since  time.Time
	before int                // how many of those who were known have not answered
	enough chan struct{}      // closed when it is known who is there
	over   bool               // it is
	stale  bool               // somebody who answered is not there any more; or nobody could be asked
	quiet  *time.Timer        // the short silence
	eyes   map[*onlooker]bool // who wants to know
}

// onlooker is a gather that wants to know who serves a subject.
type onlooker struct {
	subject string
	asking  *asking
	enough  <-chan struct{}
	news    chan struct{} // has an element when somebody was found
	found   []candidate   // guarded by the census's lock
}

// candidate is an instance that serves a subject.
type candidate struct {
	resident
	seat
	doubtful bool
}

// watch tells of those who serve a subject: at once of those who are known to, then of those who are found. It has to be ended.
func (n *census) watch(b *Bus, subject string) *onlooker {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := &onlooker{subject: subject, news: make(chan struct{}, 1)}
	now := time.Now()
	if a := n.last; n.barred == b.up.Epoch() {
		w.asking = &asking{enough: make(chan struct{}), over: true}
		close(w.asking.enough)
	} else if w.asking = a; a == nil || a.over && now.Sub(a.since) >= a.age() {
		w.asking = n.ask(b, now)
	}
	w.enough = w.asking.enough
	for r, h := range n.known {
		if known := h.by == w.asking; known || w.asking.over {
			w.offer(r, h, !known)
		}
	}
	if w.asking.eyes != nil {
		w.asking.eyes[w] = true
	}
	return w
}

// age is for how long the answers are good.
func (a *asking) age() time.Duration {
	if a.stale {
		return staleAge
	}
	return censusAge
}

// leave ends a watch.
func (n *census) leave(w *onlooker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(w.asking.eyes, w)
}

// take returns who was found since it was last asked.
func (n *census) take(w *onlooker) []candidate {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := w.found
	w.found = nil
	return found
}

// rest returns who was found and not taken, and who is known and has not answered yet.
func (n *census) rest(w *onlooker) []candidate {
	n.mu.Lock()
	defer n.mu.Unlock()
	for r, h := range n.known {
		if !w.asking.over && h.by != w.asking {
			w.offer(r, h, true)
		}
	}
	found := w.found
	w.found = nil
	return found
}

// offer tells an onlooker of somebody who serves its subject (lock held).
func (w *onlooker) offer(r resident, h *household, doubtful bool) {
	i := slices.IndexFunc(h.seats, func(s seat) bool { return s.subject == w.subject })
	if i < 0 {
		i = slices.IndexFunc(h.seats, func(s seat) bool { return endpoint.MatchSubject(s.subject, w.subject) })
	}
	if i < 0 {
		return
	}
	s := h.seats[i]
	s.direct = s.direct && s.subject == w.subject
	w.found = append(w.found, candidate{r, s, doubtful})
	signal(w.news)
}

// ask begins to ask everybody (lock held).
func (n *census) ask(b *Bus, now time.Time) *asking {
	a := &asking{since: now, before: len(n.known), enough: make(chan struct{}), eyes: map[*onlooker]bool{}}
	n.last = a
	go n.run(b, a)
	return a
}

func (n *census) run(b *Bus, a *asking) {
	ctx, cancel := context.WithTimeout(b.hurry, discoverTime)
	defer cancel()
	err := b.survey(ctx, b.srvRoot+infoVerb, func(i Instance) { n.counted(a, &i) })
	n.mu.Lock()
	defer n.mu.Unlock()
	if errors.Is(err, endpoint.PermissionDenied) {
		n.barred = b.up.Epoch()
	}
	a.stale = a.stale || err != nil && !errors.Is(err, context.DeadlineExceeded)
	a.end(n)
}

// counted takes an answer.
func (n *census) counted(a *asking, i *Instance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last != a { // late: somebody asked again
		return
	}
	r := resident{i.Service, i.ID}
	old := n.known[r]
	if old == nil && len(n.known) >= maxResidents { // a peer may have made them up
		return
	}
	if old != nil {
		a.before--
	}
	now := time.Now()
	h := &household{seats: seatsOf(i), seen: now, by: a}
	if n.known == nil {
		n.known = map[resident]*household{}
	}
	n.known[r] = h
	for w := range a.eyes {
		w.offer(r, h, false)
	}
	if a.before == 0 && !a.over && (old != nil || a.quiet != nil) {
		a.quiet = reset(a.quiet, max(censusQuiet, 2*now.Sub(a.since)), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			a.end(n)
		})
	}
}

func seatsOf(i *Instance) []seat {
	seats := make([]seat, 0, len(i.Endpoints))
	for _, e := range i.Endpoints {
		direct := slices.Contains(strings.Split(e.Metadata[keyFeatures], ","), featureDirect)
		seats = append(seats, seat{e.Subject, e.Queue, direct})
	}
	return seats
}

// end says that it is known who is there (lock held). Those who were known and do not answer may be there all the same.
func (a *asking) end(n *census) {
	if a.over {
		return
	}
	a.over = true
	if a.quiet != nil {
		a.quiet.Stop()
	}
	for r, h := range n.known {
		switch {
		case h.by == a:
		case time.Since(h.seen) >= doubtAge:
			delete(n.known, r)
		default:
			for w := range a.eyes {
				w.offer(r, h, true)
			}
		}
	}
	close(a.enough)
}

// heard is for an instance that answered a call.
func (n *census) heard(r resident) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.known[r]; h != nil {
		h.seen = time.Now()
	}
}

// absent is for an instance that the broker, or itself, said was not there to be called.
func (n *census) absent(c candidate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.known[c.resident]
	switch {
	case h == nil:
	case c.doubtful && h.by != n.last:
		delete(n.known, c.resident)
	case n.last.over:
		n.last.stale = true
	}
}
