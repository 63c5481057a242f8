package middleware

import (
	"context"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// race is two attempts of a call. The first runs in the caller's goroutine, on the call itself; the second, if the delay
// passes, in a goroutine of its own on a call of its own. The race is over when both have returned: nothing goes on
// after it.
type race struct {
	*hedgeBinding

	ctx    context.Context
	call   *endpoint.Call
	tail   *tail
	shared *Budget
	header endpoint.Header // the call's, before inner middleware wrote to it
	trace  string          // likewise
	first  racer

	mu     sync.Mutex
	ended  bool   // the first attempt has returned: no second one begins
	winner *racer // of the two that decided it first
	second *racer // nil unless it began
}

// racer is one attempt. What it came to is for others to read once it is done.
type racer struct {
	call  *endpoint.Call
	lose  context.CancelCauseFunc
	done  chan struct{} // of the second, closed when it has returned
	start time.Time
	took  time.Duration
	reply any
	err   error
}

var errHedgeLost = endpoint.Canceled.New("another attempt of the call was quicker").WithReason(endpoint.ReasonHedgeLost)

func (b *hedgeBinding) race(ctx context.Context, c *endpoint.Call, t *tail, shared *Budget, delay time.Duration) (any, error) {
	own, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	r := &race{hedgeBinding: b, ctx: ctx, call: c, tail: t, shared: shared, trace: c.Trace()}
	r.first = racer{call: c, lose: lose, start: time.Now()}
	if c.Header.Len() > 0 { // inner middleware writes to the first attempt's, which is the call's own
		r.header = c.Header.Clone()
	}
	timer := time.AfterFunc(delay, r.launch)
	defer timer.Stop()
	defer r.end() // also when the first attempt panics
	reply, err := b.next(own, c)
	r.returned(&r.first, reply, err)
	return r.result()
}

// launch begins the second attempt, in the timer's goroutine.
func (r *race) launch() {
	ctx, lose := context.WithCancelCause(elsewhere(r.ctx))
	defer lose(nil)
	s := r.begin(lose)
	if s == nil {
		return
	}
	defer close(s.done)
	err := error(endpoint.Internal.New("the attempt ended its goroutine").WithReason(endpoint.ReasonPanic))
	var reply any
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, endpoint.Recovered(p)
		}
		r.returned(s, reply, err)
	}()
	reply, err = r.next(ctx, s.call)
}

// elsewhere would send the second attempt to another instance than the first one's. As yet no transport tells who that
// is before there is a reply: a queue group chooses. One whose service acknowledges a request tells early enough; what
// it needs is a way to ask for the instance while the attempt runs, and a direction that excludes it.
func elsewhere(ctx context.Context) context.Context { return ctx }

// begin makes the second attempt, unless the first has returned meanwhile or there is no budget left. The lock, which
// belongs to this call alone, is held so that nothing is taken for nothing.
func (r *race) begin(lose context.CancelCauseFunc) *racer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || !r.tail.extra.take(r.call) || r.shared != nil && !r.shared.take(r.call) {
		return nil
	}
	r.second = &racer{call: r.call.Beside(r.header, r.trace), lose: lose, done: make(chan struct{}), start: time.Now()}
	return r.second
}

// returned keeps what an attempt came to, and if that decides the race, cancels the other one.
func (r *race) returned(a *racer, reply any, err error) {
	a.reply, a.err, a.took = reply, err, time.Since(a.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	first := a == &r.first
	r.ended = r.ended || first
	if r.winner != nil || !decides(err) {
		return
	}
	r.winner = a
	switch {
	case !first:
		r.first.lose(errHedgeLost)
	case r.second != nil:
		r.second.lose(errHedgeLost)
	}
}

// decides tells what need not wait for the other attempt: a reply, or a failure that is an answer and stays one.
func decides(err error) bool {
	return err == nil || endpoint.OutcomeOf(err) == endpoint.Executed && law(err, true, false) == tryNever
}

// end lets no second attempt begin, and waits for the one that did. One that still runs has lost, or its fellow panicked;
// one that the first attempt, having failed, waits for, is waited for in result.
func (r *race) end() {
	r.mu.Lock()
	r.ended = true
	s := r.second
	r.mu.Unlock()
	if s != nil {
		s.lose(errHedgeLost)
		<-s.done
	}
}

// result is that of the race, once the first attempt has returned.
func (r *race) result() (any, error) {
	r.mu.Lock()
	s := r.second
	r.mu.Unlock()
	if s == nil {
		return r.first.reply, r.first.err
	}
	<-s.done
	w := r.winner
	if w == nil {
		return nil, r.failed(s)
	}
	r.call.Adopt(w.call)
	return w.reply, w.err
}

// failed is the error of a race that nobody won.
func (r *race) failed(s *racer) error {
	before, last := &r.first, s
	if rank(endpoint.OutcomeOf(s.err)) < rank(endpoint.OutcomeOf(r.first.err)) {
		before, last = last, before
	}
	var both RetryError
	for _, a := range []*racer{before, last} {
		both.add(RetryAttempt{Attempt: a.call.Attempt, Instance: a.call.Instance(), Took: a.took, Err: a.err})
	}
	e, ok := find(last.err)
	if !ok {
		e = endpoint.CodeOf(last.err).New("")
	}
	r.call.Adopt(last.call)
	return e.WithCause(&both)
}
