package middleware

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"postbus.example/endpoint"
)

// BreakerPolicy says when [Breaker] opens and closes. The zero value is the good default. Negative values are faults.
type BreakerPolicy struct {
	// Failures is how many failures in a row, all of them within the Window, open it. By default 6.
	Failures int

	// FailureRatio opens it, too, when so many of the calls that count within the Window failed, of at least MinCalls. By
	// default 0.5 of 20. It is at most 1.
	FailureRatio float64
	MinCalls     int

	// Window is the time that is looked at; it rolls on by a tenth. By default 30 seconds, so that a single caller whose
	// calls end by their attempt's deadline gets to its six failures. At least 10 ms.
	Window time.Duration

	// OpenFor is how long it stays open; the next call after that is the first trial. By default 5 seconds: long enough for
	// a crowd to let go of a service, and half of the default deadline of a call, so that callers notice the
	// recovery while they still care. A trial costs the service one call.
	OpenFor time.Duration

	// Trials is how many calls it then lets through to find out. If all of them go well, it closes; if one fails, it opens
	// again. By default 1.
	Trials int

	// OnStateChange is told each change, one after the other and in order for each subject, in the goroutine of a call
	// that changed it, which it holds up. No lock is held: it may call through the same Breaker. By default nobody is told.
	OnStateChange func(subject string, from, to BreakerState)

	// Report is told the state, 0 closed, 1 half-open, 2 open, at the first call of a subject and at each change: the name
	// is "breaker_state". It runs as OnStateChange does, before it. By default nobody is told.
	Report func(name, subject string, value float64)
}

// BreakerState is the state of a [Breaker] for one subject; the zero value is closed.
type BreakerState uint8

// The states. The numbers are those that Report is told.
const (
	BreakerClosed   BreakerState = iota // calls pass and are counted
	BreakerHalfOpen                     // some calls pass, to find out
	BreakerOpen                         // no call passes
)

// String returns closed, half_open or open.
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerHalfOpen:
		return "half_open"
	case BreakerOpen:
		return "open"
	default:
		return "unknown"
	}
}

const (
	defaultFailures     = 6
	defaultFailureRatio = 0.5
	defaultMinCalls     = 20
	defaultWindow       = 30 * time.Second
	defaultOpenFor      = 5 * time.Second
	breakerBuckets      = 10 // a window rolls in so many steps
	leastWindow         = breakerBuckets * time.Millisecond
)

func (p *BreakerPolicy) complete() []error {
	var faults []error
	for _, f := range []struct {
		name string
		bad  bool
	}{
		{"Failures", p.Failures < 0},
		{"FailureRatio", p.FailureRatio < 0},
		{"MinCalls", p.MinCalls < 0},
		{"Window", p.Window < 0},
		{"OpenFor", p.OpenFor < 0},
		{"Trials", p.Trials < 0},
	} {
		if f.bad {
			faults = append(faults, fmt.Errorf("%s is negative", f.name))
		}
	}
	if p.FailureRatio > 1 || math.IsNaN(p.FailureRatio) {
		faults = append(faults, fmt.Errorf("FailureRatio %v is not between 0 and 1", p.FailureRatio))
	}
	if p.Window > 0 && p.Window < leastWindow {
		faults = append(faults, fmt.Errorf("the Window %v is less than %v", p.Window, leastWindow))
	}
	if p.Failures == 0 {
		p.Failures = defaultFailures
	}
	if p.FailureRatio == 0 {
		p.FailureRatio = defaultFailureRatio
	}
	if p.MinCalls == 0 {
		p.MinCalls = defaultMinCalls
	}
	if p.Window == 0 {
		p.Window = defaultWindow
	}
	if p.OpenFor == 0 {
		p.OpenFor = defaultOpenFor
	}
	if p.Trials == 0 {
		p.Trials = 1
	}
	return faults
}

// Breaker refuses calls of a subject that fails, until it had time to recover: unavailable, reason breaker_open, with the
// time until the next trial as RetryAfter; NotSent on the client's side, NotExecuted on the server's, before decoding.
// [Retry] leaves such a refusal to the caller.
//
//	closed ──▶ open        Failures in a row, or FailureRatio of at least MinCalls, within the Window
//	open ──▶ half-open     at the first call after OpenFor, which is a trial
//	half-open ──▶ closed   all Trials went well
//	half-open ──▶ open     a trial failed
//
// What counts, at the end of a call:
//
//	failure   unavailable, deadline_exceeded, internal, unknown, data_loss; outcome MaybeExecuted or Executed
//	success   a reply, and any other code with outcome Executed: a service that says not_found is well
//	neither   NotSent and NotExecuted: limits, refusals, nobody there; canceled; whatever ends when the caller has left,
//	          or as the loser of a [Hedge]; panics of other middleware
//
// A deadline that passed is a failure, however short the caller made it. A trial that counts neither way lets the next
// call try. So does a unary trial that is still out after OpenFor, so that a stuck call keeps nobody waiting; a stream
// that has lived for so long is a trial that went well.
//
// There is one breaker for each subject and side, shared by all that one Breaker value surrounds; it is made at the first
// call. Of more than 10,000 subjects those are forgotten that nobody bound himself to for the longest time. On the
// client's side, innermost, it keeps one caller from a service in trouble. On the server's side it keeps
// callers from a handler whose own needs are not met, and counts what the peer is told. Streams of all kinds count once,
// by their end. Gathers pass through: they have no verdict of their own.
//
// The good path costs no allocation and no lock, a refusal one allocation.
func Breaker(p BreakerPolicy) endpoint.Middleware {
	if faults := p.complete(); faults != nil {
		return broken("Breaker", faults...)
	}
	return newBreaker(p).middleware
}

// breaker is one middleware value.
type breaker struct {
	policy         BreakerPolicy
	client, server *endpoint.Error // refusals
	circuits       subjects[circuit]
}

func newBreaker(p BreakerPolicy) *breaker {
	refusal := endpoint.Unavailable.New("the circuit breaker is open").WithReason(endpoint.ReasonBreakerOpen)
	return &breaker{
		policy: p,
		client: refusal.WithOutcome(endpoint.NotSent),
		server: refusal.WithOutcome(endpoint.NotExecuted),
	}
}

func (b *breaker) middleware(next endpoint.Handler) endpoint.Handler {
	var bound subjectBinding[circuit]
	return func(ctx context.Context, c *endpoint.Call) (any, error) {
		c.AtOnce()
		pass, err := b.enter(&bound, c)
		if err != nil {
			return nil, err
		}
		defer pass.gone()
		reply, err := next(ctx, c)
		pass.leave(ctx, c, err)
		return reply, err
	}
}

// passage is a call that the breaker let pass, until it left; the zero value is one that it has no verdict on.
type passage struct {
	circuit *circuit
	ticket  ticket
}

// enter lets a call pass, or says why not.
func (b *breaker) enter(bound *subjectBinding[circuit], c *endpoint.Call) (p passage, _ error) {
	if c.Spec.Kind == endpoint.GatherKind {
		return p, nil
	}
	x := b.circuit(bound, c)
	t, wait, ok := x.enter(c.Spec.Kind != endpoint.UnaryKind)
	if !ok {
		return p, b.refuse(c, wait)
	}
	return passage{x, t}, nil
}

// leave counts a call that has ended.
//
//go:noinline
func (p *passage) leave(ctx context.Context, c *endpoint.Call, err error) {
	if x := p.circuit; x != nil {
		verdict := verdictOf(ctx, c, err)
		p.circuit = nil
		x.leave(p.ticket, verdict)
	}
}

// gone is for a call that may not have left: it panicked, or its goroutine ended.
func (p *passage) gone() {
	if p.circuit != nil {
		p.circuit.leave(p.ticket, errNoVerdict)
	}
}

func (b *breaker) circuit(bound *subjectBinding[circuit], c *endpoint.Call) *circuit {
	x, fresh := bound.of(&b.circuits, c, func(x *circuit) { x.prepare(&b.policy, c.Subject) })
	if fresh && b.policy.Report != nil {
		b.policy.Report("breaker_state", c.Subject, float64(BreakerClosed))
	}
	return x
}

// refuse is not inlined, since calls that pass would have the error's copies on their stack.
//
//go:noinline
func (b *breaker) refuse(c *endpoint.Call, wait time.Duration) error {
	if c.Side == endpoint.ServerSide {
		return b.server.WithRetryAfter(wait)
	}
	return b.client.WithRetryAfter(wait)
}

// The verdicts on a call, besides nil: what gobreaker is told.
var (
	errFailed    = errors.New("failed")
	errNoVerdict = errors.New("neither failed nor went well")
)

// verdictOf applies the table of Breaker.
func verdictOf(ctx context.Context, c *endpoint.Call, err error) error {
	if err == nil {
		return nil
	}
	code, outcome := endpoint.CodeOf(err), endpoint.OutcomeOf(err)
	if c.Side == endpoint.ServerSide {
		told := c.Verdict(err)
		code, outcome = told.Code, told.Outcome()
	}
	if outcome == endpoint.NotSent || outcome == endpoint.NotExecuted {
		return errNoVerdict
	}
	switch code {
	case endpoint.Unavailable, endpoint.DeadlineExceeded, endpoint.Internal, endpoint.Unknown, endpoint.DataLoss:
		if errors.Is(ctx.Err(), context.Canceled) { // what it says is what the leaving caller made of it
			return errNoVerdict
		}
		return errFailed
	case endpoint.Canceled:
		return errNoVerdict
	default:
		if outcome == endpoint.Executed {
			return nil
		}
		return errNoVerdict
	}
}
