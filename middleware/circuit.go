package middleware

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// circuit is the breaker of one subject: gobreaker's state machine, and around it what calls need.
//
// A call in the closed state counts when it ended: gobreaker's window goes by the start, and would drop the very calls that
// hung for longer than the window. So the window is ours, and gobreaker is told of failures, after which it asks whether to
// open. A trial asks at its start.
type circuit struct {
	policy  *BreakerPolicy
	subject string
	state   atomic.Uint64 // the number of changes, times 4, plus the BreakerState; written under mu
	tally   tally         // of the closed state

	mu      sync.Mutex // around each use of two, whose own lock is never contended, then
	two     *gobreaker.TwoStepCircuitBreaker[struct{}]
	until   time.Time // when the open state ends
	trials  []*trial  // those out, in order
	changes []breakerChange
	telling bool // somebody tells the changes
}

// trial is a call let through in the half-open state.
type trial struct {
	done   func(error) // nil once it was called, or the state has changed
	since  time.Time
	stream bool
}

type breakerChange struct{ from, to BreakerState }

// ticket is a call's permission to pass.
type ticket struct {
	state uint64 // of the circuit, when a call passed that is not a trial
	trial *trial
}

func (x *circuit) prepare(p *BreakerPolicy, subject string) {
	x.policy, x.subject = p, subject
	x.tally.start(p.Window)
	x.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   uint32(min(p.Trials, math.MaxInt32)),
		Timeout:       p.OpenFor - 1, // it stays open for longer than that
		ReadyToTrip:   x.trips,
		OnStateChange: func(_ string, from, to gobreaker.State) { x.changed(stateOf(from), stateOf(to)) },
		IsExcluded:    func(err error) bool { return err == errNoVerdict }, //nolint:errorlint // identity is meant
	})
}

func stateOf(s gobreaker.State) BreakerState {
	switch s {
	case gobreaker.StateOpen:
		return BreakerOpen
	case gobreaker.StateHalfOpen:
		return BreakerHalfOpen
	default:
		return BreakerClosed
	}
}

// trips decides by our own counts: of the closed state gobreaker knows the failures alone.
func (x *circuit) trips(gobreaker.Counts) bool {
	calls, failures, inRow := x.tally.sum()
	if inRow >= uint64(x.policy.Failures) {
		return true
	}
	return calls >= uint64(x.policy.MinCalls) && float64(failures) >= x.policy.FailureRatio*float64(calls)
}

// changed runs under gobreaker's lock and ours: it only takes notes.
func (x *circuit) changed(from, to BreakerState) {
	x.state.Store((x.state.Load()>>2+1)<<2 | uint64(to))
	for _, t := range x.trials { // gobreaker does not take their verdicts any more
		t.done = nil
	}
	x.trials = nil
	x.tally.clear()
	if to == BreakerOpen {
		x.until = time.Now().Add(x.policy.OpenFor)
	}
	if x.policy.OnStateChange != nil || x.policy.Report != nil {
		x.changes = append(x.changes, breakerChange{from, to})
	}
}

func (x *circuit) is(s BreakerState) bool { return BreakerState(x.state.Load()&3) == s }

// enter lets a call pass, or says how long the next one must wait.
func (x *circuit) enter(stream bool) (t ticket, wait time.Duration, ok bool) {
	if s := x.state.Load(); BreakerState(s&3) == BreakerClosed { // only the end of a call leads out of it
		return ticket{state: s}, 0, true
	}
	x.mu.Lock()
	defer x.unlock()
	now := time.Now()
	x.relieve(now)
	if x.is(BreakerClosed) {
		return ticket{state: x.state.Load()}, 0, true
	}
	done, err := x.two.Allow()
	if err != nil {
		return ticket{}, x.wait(now), false
	}
	t.trial = &trial{done: done, since: now, stream: stream}
	x.trials = append(x.trials, t.trial)
	return t, 0, true
}

// wait returns when the next call may pass: after the open state, or when a trial that is out has to make room.
func (x *circuit) wait(now time.Time) time.Duration {
	until := x.until
	if len(x.trials) > 0 {
		until = x.trials[0].since.Add(x.policy.OpenFor)
	}
	return max(until.Sub(now), leastWait)
}

// relieve ends the trials that are out for long. It needs no timer: who could be let through looks himself.
func (x *circuit) relieve(now time.Time) {
	for len(x.trials) > 0 && now.Sub(x.trials[0].since) >= x.policy.OpenFor {
		if t := x.trials[0]; t.stream {
			x.end(t, nil)
		} else {
			x.end(t, errNoVerdict)
		}
	}
}

// leave counts a call that has ended.
func (x *circuit) leave(t ticket, verdict error) {
	if t.trial == nil && verdict == errNoVerdict { //nolint:errorlint // identity is meant
		return
	}
	if t.trial == nil && verdict == nil {
		if x.state.Load() == t.state { // else it began before the last change, and says nothing of now
			x.tally.success()
		}
		return
	}
	x.mu.Lock()
	defer x.unlock()
	if t.trial != nil {
		x.end(t.trial, verdict)
		return
	}
	if x.state.Load() != t.state {
		return
	}
	x.tally.failure()
	if done, err := x.two.Allow(); err == nil {
		done(verdict)
	}
}

// end tells the verdict on a trial, once.
func (x *circuit) end(t *trial, verdict error) {
	if t.done == nil {
		return
	}
	done := t.done
	t.done = nil
	if i := slices.Index(x.trials, t); i >= 0 {
		x.trials = slices.Delete(x.trials, i, i+1)
	}
	done(verdict)
}

// unlock ends a critical section and tells what changed in it.
func (x *circuit) unlock() {
	changed := len(x.changes) > 0
	x.mu.Unlock()
	if changed {
		x.tell()
	}
}

// tell tells the changes in order, with no lock held. One goroutine at a time does, for all: who comes meanwhile,
// a callback that calls through this breaker among them, leaves its change to it.
func (x *circuit) tell() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.telling {
		return
	}
	x.telling = true
	defer func() { x.telling = false }() // also when a callback panics
	for len(x.changes) > 0 {
		c := x.changes[0]
		x.changes = x.changes[1:]
		x.tellOne(c)
	}
}

func (x *circuit) tellOne(c breakerChange) {
	x.mu.Unlock()
	defer x.mu.Lock()
	if x.policy.Report != nil {
		x.policy.Report("breaker_state", x.subject, float64(c.to))
	}
	if x.policy.OnStateChange != nil {
		x.policy.OnStateChange(x.subject, c.from, c.to)
	}
}
