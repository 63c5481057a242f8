package bus

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/internal/wire"
)

const (
	probeEvery = 100 * time.Millisecond // for one instance, at most
	probeFirst = 250 * time.Millisecond // of a stream, after it was opened
	probeLong  = time.Second            // for one that has nothing but streams of ours, which live for long, as long as nothing is in doubt
	probePause = 10 * time.Millisecond  // between two looks at all instances
	comeBack   = 5 * time.Second        // what an instance may take to reconnect: the longest delay of ours
	maxProbes  = 30                     // of one instance that have no answer yet: those of three seconds
	peerIdle   = time.Second            // after its last probe, an instance without a call is forgotten
	maxMute    = 1024                   // services that are neither probed nor sent cancels
)

// peer is one instance that has calls of ours.
type peer struct {
	prefix, service string
	calls           map[string]waiting   // by name
	streams         int                  // of them
	missing         map[string]time.Time // of them, those that the last answer said are not there, since when

	asked   time.Time // when the last probe went out
	serial  int       // its number
	open    []*probe  // that have no answer yet, oldest first
	lived   uint64    // the epoch in which it last answered
	suspect bool      // the last answer was the broker's: nobody is there
	absent  time.Time // since when it says so, in missed, of an instance that answered on an earlier connection
	missed  uint64    // an epoch
}

// probe is one question. The next one does not wait for its answer, which may take longer than the time between two.
type probe struct {
	slot  *slot
	asked time.Time
	epoch uint64   // of the connection that it went out by
	about []string // the calls that it asks for
}

// waiting is a call that waits for its reply, or a stream.
type waiting struct {
	slot   *slot
	secret uint64
	stream bool
}

// pace is how much time passes between two probes (lock held).
func (q *peer) pace() time.Duration {
	if q.streams > 0 && q.streams == len(q.calls) && !q.suspect && len(q.missing) == 0 {
		return probeLong
	}
	return probeEvery
}

// remove forgets a call (lock held).
func (q *peer) remove(call string) {
	if q.calls[call].stream {
		q.streams--
	}
	delete(q.calls, call)
	delete(q.missing, call)
}

// watch probes for a call until it is closed.
func (p *peers) watch(s *slot, secret uint64, h *holder) {
	if h.shared {
		p.forget(h)
		return
	}
	if h.Call == "" { // by way of an import a dead instance is silent
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.mute[h.Service] {
		return
	}
	s.mu.Lock()
	still, stream := s.secret == secret && s.ack == h, s.sink != nil && !s.whole
	s.mu.Unlock()
	if !still {
		return
	}
	prefix := h.Prefix()
	q := p.known[prefix]
	if q == nil {
		q = &peer{prefix: prefix, service: h.Service, calls: map[string]waiting{}, missing: map[string]time.Time{}}
		p.known[prefix] = q
	}
	q.remove(h.Call) // two calls with one name are a service's fault
	q.calls[h.Call] = waiting{s, secret, stream}
	if stream {
		q.streams++
		if q.asked.IsZero() {
			q.asked = time.Now().Add(probeFirst - probeLong) // a short one needs no probe, nor the grant for it
		}
	}
	p.wake(q.asked.Add(q.pace()))
}

// forget ends the watch over a call.
func (p *peers) forget(h *holder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.known[h.Prefix()]; q != nil {
		q.remove(h.Call)
	}
}

// wake sees to it that the prober runs by then (lock held).
func (p *peers) wake(at time.Time) {
	if !p.wakes.IsZero() && !at.Before(p.wakes) {
		return
	}
	p.wakes = at
	p.prober = reset(p.prober, max(time.Until(at), 0), p.probe)
}

// probe asks each instance whose turn it is.
func (p *peers) probe() {
	var due []*peer
	epoch, now := p.bus.up.Epoch(), time.Now()
	p.mu.Lock()
	if p.wakes = (time.Time{}); p.ended {
		p.mu.Unlock()
		return
	}
	for prefix, q := range p.known {
		next := q.asked.Add(q.pace())
		switch idle := len(q.calls) == 0 && len(q.open) == 0; {
		case idle && now.Sub(q.asked) >= peerIdle:
			delete(p.known, prefix)
			continue
		case idle:
			next = q.asked.Add(peerIdle)
		case !next.After(now):
			due = append(due, q)
			q.asked = now
			next = now.Add(q.pace())
		}
		p.wake(maxTime(next, now.Add(probePause)))
	}
	p.mu.Unlock()
	for _, q := range due {
		if !p.denied(q) {
			p.ask(q, epoch)
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// denied gives a service's instances up when nobody answered a probe and the last word of the broker, on a connection that was
// adopted, was that we may not send one. On ours it is told, see heard.
func (p *peers) denied(q *peer) bool {
	if p.bus.owned {
		return false
	}
	subject, ok := deniedPublish(p.bus.nc.LastError())
	if !ok || !strings.HasPrefix(subject, q.prefix) {
		return false
	}
	p.mu.Lock()
	waits := len(q.open) > 0
	p.mu.Unlock()
	if waits {
		p.silence(q.service)
	}
	return waits
}

// silence ends probes and cancels at a service, whose instances' subjects the broker denies.
func (p *peers) silence(service string) {
	p.mu.Lock()
	if p.mute[service] || len(p.mute) >= maxMute { // more than that were made up by peers
		p.mu.Unlock()
		return
	}
	p.mute[service] = true
	for prefix, q := range p.known {
		if q.service == service {
			p.drop(q, len(q.open))
			delete(p.known, prefix)
		}
	}
	p.mu.Unlock()
	p.bus.report(slog.LevelWarn, "no probes and cancels any more: the broker denies the subjects of instances", slog.String("service", service))
}

// drop gives up on the answers to the oldest probes (lock held).
func (p *peers) drop(q *peer, n int) {
	for _, k := range q.open[:n] {
		p.bus.mux.close(k.slot)
		k.slot = nil
	}
	q.open = slices.Delete(q.open, 0, n)
}

// ask sends one probe.
func (p *peers) ask(q *peer, epoch uint64) {
	there := p.bus.connected() // not under the lock: who does not own the connection may have to wait for a dial
	p.mu.Lock()
	if p.ended || len(q.calls) == 0 || p.mute[q.service] {
		p.drop(q, len(q.open))
		p.mu.Unlock()
		return
	}
	if !there {
		p.mu.Unlock()
		return
	}
	if len(q.open) == maxProbes {
		p.drop(q, 1)
	}
	k := &probe{asked: q.asked, epoch: epoch, about: q.sample(p.frame())}
	var secret uint64
	k.slot, secret = p.bus.mux.open(request{}, func(m *nats.Msg) { go p.answered(q, k, m) }) // not under the slot's lock
	if k.slot == nil {
		p.mu.Unlock()
		return
	}
	q.serial++
	q.open = append(q.open, k)
	reply := string(wire.AppendID([]byte(p.bus.mux.prefix), k.slot.index, secret))
	p.mu.Unlock()
	_ = p.publish(q.prefix, k.about, wire.VerbPing, reply) // the next one will tell
}

// sample is what a probe asks for: first what was missing, then any (lock held). Maps are ranged at random, so each has its turn.
func (q *peer) sample(most int) []string {
	about := make([]string, 0, min(len(q.calls), most))
	for call := range q.missing {
		if len(about) < most {
			about = append(about, call)
		}
	}
	for call := range q.calls {
		if len(about) == most {
			break
		}
		if _, known := q.missing[call]; !known {
			about = append(about, call)
		}
	}
	return about
}
