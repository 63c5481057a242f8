package middleware_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// row is one line of the law, as it is written in the documentation: the first that fits decides.
type row struct {
	fits func(s situation) bool
	does string
}

// situation is what a failed attempt looks like.
type situation struct {
	outcome    endpoint.Outcome
	code       endpoint.Code
	reason     string
	advice     time.Duration
	late       bool
	idempotent bool
	left       time.Duration
}

func (s situation) notRun() bool {
	return s.outcome == endpoint.NotSent || s.outcome == endpoint.NotExecuted
}

var lawRows = []row{
	{func(s situation) bool { return s.advice < 0 }, "never"},
	{func(s situation) bool { return s.advice >= s.left }, "never"},
	{func(s situation) bool {
		return s.reason == "breaker_open" || s.reason == "local_limit" || s.reason == "rate_limited"
	}, "never"},
	{func(s situation) bool {
		return s.notRun() && s.code == endpoint.Unavailable && s.reason == "no_responders"
	}, "once"},
	{func(s situation) bool { return s.notRun() && s.code == endpoint.Unavailable }, "on the budget"},
	{func(s situation) bool { return s.notRun() && s.code == endpoint.ResourceExhausted && s.advice > 0 }, "on the budget"},
	{func(s situation) bool { return s.notRun() }, "never"},
	{func(s situation) bool { return s.idempotent && s.code == endpoint.Unavailable }, "on the budget"},
	{func(s situation) bool { return s.idempotent && s.code == endpoint.Aborted }, "on the budget"},
	{func(s situation) bool { return s.idempotent && s.code == endpoint.DeadlineExceeded && s.late }, "on the budget"},
	{func(situation) bool { return true }, "never"},
}

func judge(s situation) string {
	for _, r := range lawRows {
		if r.fits(s) {
			return r.does
		}
	}
	panic("the last row fits all")
}

var outcomeOrder = []endpoint.Outcome{endpoint.NotSent, endpoint.NotExecuted, endpoint.MaybeExecuted, endpoint.Executed}

func worse(a, b endpoint.Outcome) endpoint.Outcome {
	for _, o := range slices.Backward(outcomeOrder) {
		if o == a || o == b {
			return o
		}
	}
	return a
}

const (
	modelDeadline = time.Hour
	modelAttempt  = time.Second
)

// step draws one attempt's answer; nil is success, errHang waits for the context.
func step(rt *rapid.T) error {
	switch rapid.IntRange(0, 9).Draw(rt, "kind") {
	case 0:
		return nil
	case 1:
		return errHang
	case 2:
		return rapid.SampledFrom([]error{endpoint.Unavailable, endpoint.Aborted, errors.New("foreign")}).Draw(rt, "bare")
	}
	code := rapid.SampledFrom([]endpoint.Code{
		endpoint.Unavailable, endpoint.Unavailable, endpoint.Unavailable, endpoint.ResourceExhausted, endpoint.ResourceExhausted,
		endpoint.Aborted, endpoint.DeadlineExceeded, endpoint.Internal, endpoint.NotFound, endpoint.Canceled,
	}).Draw(rt, "code")
	e := code.New("x").
		WithOutcome(rapid.SampledFrom(outcomeOrder).Draw(rt, "outcome")).
		WithReason(rapid.SampledFrom([]string{
			"", "no_responders", "no_responders", "draining", "disconnected", "backlog_full", "breaker_open", "local_limit", "rate_limited",
		}).Draw(rt, "reason")).
		WithRetryAfter(rapid.SampledFrom([]time.Duration{0, 0, 0, time.Millisecond, time.Minute, 2 * modelDeadline, -1}).Draw(rt, "advice"))
	if rapid.Bool().Draw(rt, "remote") {
		e = e.AsRemote()
	}
	return e
}

// expectation is what a call must have come to.
type expectation struct {
	tries   int
	ok      bool
	code    endpoint.Code
	reason  string
	outcome endpoint.Outcome
}

// predict runs the law over a script, the plain way.
func predict(script []error, attempts, budget int, idempotent bool) expectation {
	want := expectation{outcome: endpoint.NotSent}
	quick := false
	for {
		err := script[min(want.tries, len(script)-1)]
		want.tries++
		if err == nil {
			want.ok = true
			return want
		}
		s := situation{idempotent: idempotent, left: modelDeadline - time.Minute*time.Duration(want.tries)}
		switch e, ok := errors.AsType[*endpoint.Error](err); {
		case ok:
			s.outcome, s.code, s.reason, s.advice = e.Outcome(), e.Code, e.Reason(), e.RetryAfter
		case errors.Is(err, errHang):
			s.outcome, s.code, s.reason, s.late = endpoint.MaybeExecuted, endpoint.DeadlineExceeded, "timeout", idempotent
			if !idempotent {
				s.reason = ""
			}
		default:
			s.outcome, s.code = endpoint.MaybeExecuted, endpoint.CodeOf(err)
		}
		want.code, want.reason, want.outcome = s.code, s.reason, worse(want.outcome, s.outcome)
		does := judge(s)
		if does == "never" || does == "once" && quick || want.tries == attempts || budget == 0 {
			return want
		}
		quick = quick || does == "once"
		budget--
	}
}

func TestRetryModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		attempts := rapid.IntRange(1, 6).Draw(rt, "attempts")
		budget := rapid.IntRange(0, 5).Draw(rt, "budget")
		idempotent := rapid.Bool().Draw(rt, "idempotent")
		answers := rapid.SliceOfN(rapid.Custom(step), 1, 7).Draw(rt, "answers")
		limit := middleware.BudgetPolicy{Ratio: -1, PerSecond: -1, Window: modelDeadline}
		if budget > 0 {
			limit.PerSecond = (float64(budget) + 1e-6) / modelDeadline.Seconds()
		}
		opts := []endpoint.Option{endpoint.Timeout(modelDeadline), middleware.Retry(middleware.RetryPolicy{
			Attempts: attempts, AttemptTimeout: modelAttempt, Budget: middleware.NewBudget(limit),
		})}
		if idempotent {
			opts = append(opts, endpoint.Idempotent())
		}
		s := &script{errs: answers}
		var err error
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err = caller(s.handle, opts...)(t.Context(), &addRequest{})
			assert.True(t, time.Since(start) <= modelDeadline, "within its deadline")
		})
		want := predict(answers, attempts, budget, idempotent)
		if got := len(s.at); got != want.tries {
			rt.Fatalf("%d attempts, want %d", got, want.tries)
		}
		if (err == nil) != want.ok {
			rt.Fatalf("error %v, want success: %v", err, want.ok)
		}
		if want.ok {
			return
		}
		if endpoint.CodeOf(err) != want.code || reasonOf(err) != want.reason || endpoint.OutcomeOf(err) != want.outcome {
			rt.Fatalf("%v, %v; want %+v", err, endpoint.OutcomeOf(err), want)
		}
		if list, ok := errors.AsType[*middleware.RetryError](err); ok != (want.tries > 1) || ok && list.Total != want.tries {
			rt.Fatalf("a list of attempts: %v", list)
		}
	})
}

// TestRetryModelIsTheLaw holds the reference itself against the rows of the design, one by one.
func TestRetryModelIsTheLaw(t *testing.T) {
	base := situation{outcome: endpoint.NotExecuted, code: endpoint.Unavailable, left: time.Second}
	with := func(change func(*situation)) situation {
		s := base
		change(&s)
		return s
	}
	assert.Equal(t, judge(base), "on the budget")
	assert.Equal(t, judge(with(func(s *situation) { s.reason = "no_responders" })), "once")
	assert.Equal(t, judge(with(func(s *situation) { s.code = endpoint.ResourceExhausted })), "never")
	assert.Equal(t, judge(with(func(s *situation) { s.outcome = endpoint.Executed })), "never")
	assert.Equal(t, judge(with(func(s *situation) { s.outcome, s.idempotent = endpoint.Executed, true })), "on the budget")
}
