package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/endpoint"
)

// Frames are sent where all who serve the subject take them, and said so when they were asked. Not where some do: the broker
// would give these the frames, and everybody a share of what is left.
//
//	nobody asked ──► two calls at once: ask ──► all do ──► agreed
//	      ▲                                 └─► not all      │  nobody takes one; or a call that went alone was
//	      └──────────────── a while later ◄───────┴──────────┘  answered by somebody whom nobody knows
//
// While frames are sent, one in sampleEvery calls goes alone and asks who answers it. So those are noticed who came later, who
// don't answer questions, or who get a part of the calls by a mapping of the subject.

const (
	refusedShort = time.Second // nobody took a frame, or there is somebody new
	refusedLong  = time.Minute
	rosterAge    = 5 * time.Second // of what is known about who serves what, at least, before it is asked for again
	rosterTime   = 5 * time.Second // for the answers
)

// terms are what is known about frames on one subject. The zero value is ready to use.
type terms struct {
	agreed atomic.Bool
	idle   atomic.Int64 // nobody asks before, in unix nanoseconds
	never  atomic.Bool

	mu      sync.Mutex
	members []string // who agreed
	again   time.Duration
}

// refused ends frames for a while.
func (t *terms) refused(pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.agreed.Store(false)
	t.again = min(max(2*t.again, pause), refusedLong)
	t.idle.Store(time.Now().Add(t.again).UnixNano())
}

// overheard ends them for good: a stream keeps what is sent to the subject, and would have the calls in frames as it has none
// of ours, or not at all.
func (b *batcher) overheard() {
	if b != nil {
		b.terms.never.Store(true)
		b.terms.agreed.Store(false)
	}
}

// knows reports whether an instance is one of those who agreed.
func (t *terms) knows(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.members, id)
}

// many reports whether several agreed.
func (t *terms) many() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members) > 1
}

// enter decides whether a call that begins may go in a frame, and whether it is to ask who answers it. It sees to it that
// somebody is asked for the terms, if that is due.
func (b *batcher) enter() (framed, sampled bool) {
	if b == nil {
		return false, false
	}
	t, calls := &b.terms, b.calls.Add(1)
	if b.bus.eager {
		return !t.never.Load(), false
	}
	if !t.agreed.Load() {
		if calls > 1 && !t.never.Load() {
			b.consider()
		}
		return false, false
	}
	sampled = b.count.Add(1)%sampleEvery == 0
	return !sampled, sampled
}

// leave is for a call that has ended.
func (b *batcher) leave() {
	if b != nil {
		b.calls.Add(-1)
	}
}

// consider asks, if nobody does.
func (b *batcher) consider() {
	now, idle := time.Now(), b.terms.idle.Load()
	if now.UnixNano() < idle || !b.terms.idle.CompareAndSwap(idle, now.Add(refusedLong).UnixNano()) {
		return
	}
	go b.negotiate()
}

// negotiate asks everybody who serves the subject.
func (b *batcher) negotiate() {
	members, err := b.bus.roster.who(b.bus, b.subject)
	if err != nil {
		b.bus.report(slog.LevelDebug, "calls go alone, without batch frames", slog.String("subject", b.subject), slog.Any("error", err))
		b.terms.refused(refusedLong)
		return
	}
	t := &b.terms
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = members
	if !t.never.Load() {
		t.agreed.Store(true)
	}
}

// sampled looks at who answered a call that went alone.
func (b *batcher) sampled(c *endpoint.Call, err error) {
	id := c.Instance()
	if id == "" && err != nil { // nobody did
		return
	}
	if !b.terms.knows(id) {
		b.bus.roster.outdated()
		b.terms.refused(refusedShort)
	}
}

// roster is what is known about who serves what.
type roster struct {
	mu        sync.Mutex
	instances []Instance
	asked     time.Time
	err       error
}

// outdated has the next one ask again, unless somebody just did.
func (r *roster) outdated() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) > refusedShort {
		r.asked = time.Time{}
	}
}

// who returns the instances that serve a subject, if all of them take frames there.
func (r *roster) who(b *Bus, subject string) (ids []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) > rosterAge {
		ctx, cancel := context.WithTimeout(b.hurry, rosterTime)
		defer cancel()
		r.instances, r.err = b.Discover(ctx, "")
		r.asked = time.Now()
	}
	if r.err != nil {
		return nil, r.err
	}
	for _, i := range r.instances {
		for _, e := range i.Endpoints {
			switch {
			case !covers(e.Subject, subject):
			case e.Subject != subject || !slices.Contains(strings.Split(e.Metadata[keyFeatures], ","), featureFrames):
				return nil, fmt.Errorf("%s %s takes none", i.Service, i.ID)
			default:
				ids = append(ids, i.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, errNobody
	}
	return ids, nil
}

var errNobody = errors.New("nobody is known to serve the subject")

// covers reports whether a subscription to a pattern gets what is sent to a subject.
func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s) || token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}
