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
	"postbus.example/internal/wire"
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
	sampleEvery  = 64
)

// terms are what is known about frames on one subject. The zero value is ready to use.
type terms struct {
	agreed atomic.Bool
	idle   atomic.Int64 // nobody asks before, in unix nanoseconds
	never  atomic.Bool

	mu      sync.Mutex
	members []string      // who agreed
	since   time.Time     // when they did
	again   time.Duration // the pause after the next refusal, at least
}

// refused ends frames for a while, once for all that were under way: at least for the pause, and for twice as long as the last
// time, unless that was long ago.
func (t *terms) refused(pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.agreed.Load() {
		return
	}
	if time.Since(t.since) > refusedLong {
		t.again = 0
	}
	pause = min(max(t.again, pause), refusedLong)
	t.again = 2 * pause
	t.idle.Store(time.Now().Add(pause).UnixNano()) // before anybody sees that nobody has agreed
	t.agreed.Store(false)
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

// enter decides whether a call that begins may go in a frame. It sees to it that somebody is asked for the terms, if that is due:
// if the call is counted, for which leave is to be called once it has ended.
func (b *batcher) enter() (framed, counted bool) {
	switch {
	case b == nil:
		return false, false
	case b.terms.never.Load():
		return false, false
	case b.bus.eager || b.terms.agreed.Load():
		return true, false
	}
	if b.calls.Add(1) > 1 {
		b.consider()
	}
	return false, true
}

// leave is for a call that was counted.
func (b *batcher) leave() { b.calls.Add(-1) }

// samples reports whether a call, by its random bits, is one of those that go alone and ask.
func (b *batcher) samples(secret uint64) bool { return secret%sampleEvery == 0 && !b.bus.eager }

// consider asks, if nobody does. Who gets no for an answer asks again after refusedLong.
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
		return
	}
	t := &b.terms
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members, t.since = members, time.Now()
	if !t.never.Load() {
		t.agreed.Store(true)
	}
}

// sampled looks at who answered a call that went alone.
func (b *batcher) sampled(c *endpoint.Call, err error) {
	id := c.Instance()
	if e, ok := errors.AsType[*endpoint.Error](err); id == "" && ok && !e.Remote() { // nobody did
		return
	}
	if !b.terms.knows(id) {
		b.bus.roster.outdated()
		b.terms.refused(refusedShort)
	}
}

// roster is what is known about who serves what.
type roster struct {
	asked atomic.Int64 // when, in unix nanoseconds; 0: it is outdated

	mu        sync.Mutex // held while somebody asks
	instances []Instance
	err       error
}

// outdated has the next one ask again, unless somebody just did. It does not wait for who asks.
func (r *roster) outdated() {
	if asked := r.asked.Load(); time.Now().UnixNano()-asked > int64(refusedShort) {
		r.asked.CompareAndSwap(asked, 0)
	}
}

// who returns the instances that serve a subject, if all of them take frames there.
func (r *roster) who(b *Bus, subject string) (ids []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().UnixNano()-r.asked.Load() > int64(rosterAge) {
		ctx, cancel := context.WithTimeout(b.hurry, rosterTime)
		defer cancel()
		r.asked.Store(time.Now().UnixNano())
		r.instances, r.err = b.Discover(ctx, "")
	}
	if r.err != nil {
		return nil, r.err
	}
	return framers(r.instances, subject)
}

// framers returns the instances that serve a subject, if all of them take frames there and are in one queue group: who is not
// gets its own copy of each call, so that a call which one of them refused could not be sent once more.
func framers(all []Instance, subject string) (ids []string, err error) {
	frames, queue := wire.BatchSubject(subject), ""
	for _, i := range all {
		for _, e := range i.Endpoints {
			switch {
			case !endpoint.MatchSubject(e.Subject, subject) && !endpoint.MatchSubject(e.Subject, frames):
				continue
			case e.Subject != subject || !slices.Contains(strings.Split(e.Metadata[keyFeatures], ","), featureFrames):
				return nil, fmt.Errorf("%s %s takes none", i.Service, i.ID)
			case len(ids) > 0 && (e.Queue != queue || queue == ""):
				return nil, fmt.Errorf("%s %s gets its own copy", i.Service, i.ID)
			}
			ids, queue = append(ids, i.ID), e.Queue
		}
	}
	if len(ids) == 0 {
		return nil, errNobody
	}
	return ids, nil
}

var errNobody = errors.New("nobody is known to serve the subject")
