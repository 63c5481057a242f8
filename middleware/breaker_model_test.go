package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/middleware"
)

// breakerModel is the breaker, the plain way: a list of verdicts with their times, and a state.
type breakerModel struct {
	policy  middleware.BreakerPolicy
	state   middleware.BreakerState
	since   time.Time // of the state
	changes int
	event   []event // in the closed state
	good    int     // of the half-open state
	trials  []*pass // out, in order
	told    []middleware.BreakerState
}

type event struct {
	at     time.Time
	failed bool
}

// pass is a call that passed.
type pass struct {
	changes int  // when it did
	trial   bool // in the half-open state
	at      time.Time
	over    bool // a trial that made room
	answer  chan error
}

func (m *breakerModel) become(s middleware.BreakerState, now time.Time) {
	m.state, m.since, m.changes = s, now, m.changes+1
	m.event, m.good, m.trials = nil, 0, nil
	m.told = append(m.told, s)
}

// enter returns nil for a refusal, and then how long to wait.
func (m *breakerModel) enter(now time.Time) (*pass, time.Duration) {
	if m.state == middleware.BreakerOpen && now.Sub(m.since) >= m.policy.OpenFor {
		m.become(middleware.BreakerHalfOpen, now)
	}
	for len(m.trials) > 0 && now.Sub(m.trials[0].at) >= m.policy.OpenFor { // unary: they make room
		m.trials[0].over = true
		m.trials = m.trials[1:]
	}
	p := &pass{at: now, answer: make(chan error)}
	switch m.state {
	case middleware.BreakerClosed:
	case middleware.BreakerOpen:
		return nil, m.since.Add(m.policy.OpenFor).Sub(now)
	case middleware.BreakerHalfOpen:
		if m.good+len(m.trials) >= m.policy.Trials {
			return nil, m.trials[0].at.Add(m.policy.OpenFor).Sub(now)
		}
		p.trial = true
		m.trials = append(m.trials, p)
	}
	p.changes = m.changes
	return p, 0
}

// leave counts: verdict 1 went well, -1 failed, 0 neither.
func (m *breakerModel) leave(p *pass, verdict int, now time.Time) {
	if p.changes != m.changes || p.over {
		return
	}
	if p.trial {
		for i, t := range m.trials {
			if t == p {
				m.trials = append(m.trials[:i:i], m.trials[i+1:]...)
			}
		}
		switch verdict {
		case 1:
			if m.good++; m.good == m.policy.Trials {
				m.become(middleware.BreakerClosed, now)
			}
		case -1:
			m.become(middleware.BreakerOpen, now)
		}
		return
	}
	if verdict == 0 {
		return
	}
	m.event = append(m.event, event{now, verdict < 0})
	if verdict < 0 && m.trips(now) {
		m.become(middleware.BreakerOpen, now)
	}
}

// trips looks at the window, which rolls in tenths since the state began.
func (m *breakerModel) trips(now time.Time) bool {
	bucket := func(t time.Time) int64 { return int64(t.Sub(m.since) / (m.policy.Window / 10)) }
	calls, failed, row := 0, 0, 0
	for _, c := range m.event {
		if bucket(now)-bucket(c.at) >= 10 {
			continue
		}
		calls++
		if row++; !c.failed {
			row = 0
			continue
		}
		failed++
	}
	return row >= m.policy.Failures || calls >= m.policy.MinCalls && float64(failed) >= m.policy.FailureRatio*float64(calls)
}

// errorsOf are some of each verdict.
var errorsOf = map[int][]error{
	1:  {nil, endpoint.NotFound.New("x").WithOutcome(endpoint.Executed)},
	-1: {errDown, endpoint.DeadlineExceeded.New("x"), endpoint.DataLoss.New("x").WithOutcome(endpoint.Executed)},
	0:  {errNobody, errDraining, endpoint.Canceled.New("x"), endpoint.Internal.New("x").WithOutcome(endpoint.NotSent)},
}

// move is one step of a run: a pause, a call, or the end of one that is out.
type move struct {
	what, which int
	pause       time.Duration
	verdict     int
	err         error
}

func drawMove(rt *rapid.T) move {
	m := move{
		what:    rapid.IntRange(0, 9).Draw(rt, "what"),
		which:   rapid.IntRange(0, 99).Draw(rt, "which"),
		pause:   time.Duration(rapid.IntRange(1, 40).Draw(rt, "pause")) * 250 * time.Millisecond,
		verdict: rapid.SampledFrom([]int{1, 1, -1, -1, -1, 0}).Draw(rt, "verdict"),
	}
	m.err = rapid.SampledFrom(errorsOf[m.verdict]).Draw(rt, "error")
	return m
}

// breakerRun is a breaker and its model side by side.
type breakerRun struct {
	model *breakerModel
	call  endpoint.Unary[*addRequest, *addResponse]
	next  *pass   // of the call that enters
	out   []*pass // calls that passed
	told  []middleware.BreakerState
	wg    sync.WaitGroup
	fault string
}

func (r *breakerRun) handle(ctx context.Context, c *endpoint.Call) (any, error) {
	if err := <-r.next.answer; err != nil {
		return nil, err
	}
	return ok(ctx, c)
}

func (r *breakerRun) enter(t *testing.T) {
	t.Helper()
	if r.model.since.IsZero() { // the breaker is made at the first call
		r.model.since = time.Now()
	}
	want, wait := r.model.enter(time.Now())
	if r.next = want; want == nil {
		_, err := r.call(t.Context(), &addRequest{})
		e, isError := errors.AsType[*endpoint.Error](err)
		if !isError || e.Reason() != endpoint.ReasonBreakerOpen || e.RetryAfter != max(wait, time.Millisecond) {
			r.fault = fmt.Sprintf("%#v, want a refusal for %v", err, wait)
		}
		return
	}
	r.out = append(r.out, want)
	r.wg.Go(func() {
		if _, err := r.call(t.Context(), &addRequest{}); open(err) {
			r.fault = fmt.Sprintf("refused: %v", err)
		}
	})
	synctest.Wait()
}

func (r *breakerRun) step(t *testing.T, m move) {
	t.Helper()
	switch {
	case m.what < 2:
		time.Sleep(m.pause)
	case m.what < 6 || len(r.out) == 0:
		r.enter(t)
	default:
		i := m.which % len(r.out)
		p := r.out[i]
		r.model.leave(p, m.verdict, time.Now())
		r.out = slices.Delete(r.out, i, i+1)
		select {
		case p.answer <- m.err:
		default: // it was refused, which enter noticed
		}
		synctest.Wait()
	}
	if !slices.Equal(r.told, r.model.told) {
		r.fault = fmt.Sprintf("told %v, want %v", r.told, r.model.told)
	}
}

// TestBreakerModel: whatever calls come, overlap and end, the breaker does as the model.
func TestBreakerModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := middleware.BreakerPolicy{
			Failures:     rapid.IntRange(1, 4).Draw(rt, "failures"),
			FailureRatio: rapid.SampledFrom([]float64{0.3, 0.5, 1}).Draw(rt, "ratio"),
			MinCalls:     rapid.IntRange(1, 8).Draw(rt, "min calls"),
			Window:       10 * time.Second,
			OpenFor:      rapid.SampledFrom([]time.Duration{time.Second, 7 * time.Second}).Draw(rt, "open for"),
			Trials:       rapid.IntRange(1, 3).Draw(rt, "trials"),
		}
		moves := rapid.SliceOfN(rapid.Custom(drawMove), 1, 60).Draw(rt, "moves")
		r := &breakerRun{model: &breakerModel{policy: p}}
		synctest.Test(t, func(t *testing.T) {
			defer r.wg.Wait()
			defer func() {
				for _, p := range r.out {
					close(p.answer)
				}
			}()
			p.OnStateChange = func(_ string, _, to middleware.BreakerState) { r.told = append(r.told, to) }
			r.call = caller(r.handle, middleware.Breaker(p))
			for i := 0; i < len(moves) && r.fault == ""; i++ {
				r.step(t, moves[i])
			}
		})
		if r.fault != "" {
			rt.Fatal(r.fault)
		}
	})
}
