package middleware

import (
	"context"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// flights are the executions that calls of one endpoint or caller share now. They belong to one handler: calls that go to
// different places never meet, whatever their subject, and a service's call never waits for that of its own caller.
type flights struct {
	next   endpoint.Handler
	landed func(*endpoint.Call, identity, *endpoint.Result) // sees each good reply before those who wait; nil for nobody

	mu sync.Mutex
	by map[identity]*flight
}

// flight is one execution in a goroutine of its own. It ends with its handler, and somebody always waits for that: whoever
// leaves last cancels it and stays until it has ended.
//
//	board ──▶ flying ──handler returned──▶ over ──▶ everybody lands
//	             └──left by all──▶ canceled ──handler returned──▶ over
type flight struct {
	call   *endpoint.Call // detached; until done is closed only the flight's own
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it is over

	aboard int  // guarded by flights.mu
	first  bool // the first one is still aboard; likewise
	over   bool // likewise

	// What it came to, set before done is closed.
	reply  any
	result *endpoint.Result // if somebody besides the first one needs it
	err    error
	fault  error // the reply can't be shared
	late   bool  // it failed because its time was up, which is that of the first one
}

// closeCall is how much sooner than the deadline a peer may say that it passed: it counts in milliseconds.
const closeCall = 5 * time.Millisecond

// call takes the flight of an identity, or starts it. A flight whose time was up says nothing to those who have some left:
// they fly again.
func (fs *flights) call(ctx context.Context, c *endpoint.Call, id identity) (any, error) {
	for {
		f, first, err := fs.board(ctx, c, id)
		if err != nil {
			return nil, err
		}
		stayed := f.wait(ctx)
		if !stayed && !fs.leave(ctx, f, id, first) {
			return nil, endpoint.ContextError(ctx)
		}
		<-f.done
		switch {
		case f.err == nil && first:
			c.Adopt(f.call)
			return f.reply, nil
		case f.err == nil && f.fault == nil:
			return c.Replay(f.result)
		case f.err == nil:
			return nil, f.fault
		case stayed && f.late && !first && ctx.Err() == nil:
			continue
		case !stayed && ended(f.err):
			return nil, endpoint.ContextError(ctx).WithOutcome(endpoint.OutcomeOf(f.err))
		}
		return nil, f.err
	}
}

// ended tells the errors of contexts.
func ended(err error) bool {
	code := endpoint.CodeOf(err)
	return code == endpoint.DeadlineExceeded || code == endpoint.Canceled
}

func (fs *flights) board(ctx context.Context, c *endpoint.Call, id identity) (f *flight, first bool, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.by[id]; f != nil {
		f.aboard++
		c.Follow(f.call)
		return f, false, nil
	}
	d, err := c.Detach()
	if err != nil {
		return nil, false, err
	}
	f = &flight{call: d, done: make(chan struct{}), aboard: 1, first: true}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	deadline, _ := ctx.Deadline()
	f.ctx, f.cancel = d.Begin(base, deadline), cancel
	if fs.by == nil {
		fs.by = map[identity]*flight{}
	}
	fs.by[id] = f
	go fs.run(f, id)
	return f, true, nil
}

// run executes the flight. Its panic is the error of everybody aboard.
func (fs *flights) run(f *flight, id identity) {
	returned := false
	defer func() {
		if !returned {
			f.err = endpoint.Internal.New("the goroutine ended").WithReason(endpoint.ReasonPanic)
			if p := recover(); p != nil {
				f.err = endpoint.Recovered(p)
			}
		}
		fs.end(f, id)
	}()
	f.reply, f.err = fs.next(f.ctx, f.call)
	returned = true
}

// end closes the flight. What is kept is kept before the flight is gone, so that hardly anybody finds neither.
func (fs *flights) end(f *flight, id identity) {
	defer close(f.done)
	if f.err == nil && fs.landed != nil {
		if f.share(); f.fault == nil {
			fs.landed(f.call, id, f.result)
		}
	}
	fs.mu.Lock()
	if fs.by[id] == f {
		delete(fs.by, id)
	}
	f.over = true
	shared := f.aboard > 1 || !f.first
	fs.mu.Unlock()
	switch {
	case f.err != nil:
		f.late = ended(f.err) && !f.before(time.Now().Add(closeCall))
	case shared:
		f.share()
	}
	f.cancel(nil) // releases what the context holds
}

// share makes the result that others than the first one get.
func (f *flight) share() {
	if f.result == nil && f.fault == nil {
		f.result, f.fault = f.call.Result(f.reply)
	}
}

// before reports whether the flight's deadline is still ahead.
func (f *flight) before(t time.Time) bool {
	d, ok := f.ctx.Deadline()
	return !ok || t.Before(d)
}

// wait reports whether the flight was over before the context ended.
func (f *flight) wait(ctx context.Context) bool {
	deadline, done := endpoint.Wait(ctx)
	var passed <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		passed = timer.C
	}
	select {
	case <-f.done:
		return true
	case <-done:
	case <-passed:
	}
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// leave gets off the flight. It reports true if the caller must wait for its end: it is over already, or nobody else is
// aboard. Then it is canceled, unless its own deadline does that, and the next call flies anew.
func (fs *flights) leave(ctx context.Context, f *flight, id identity, first bool) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.over {
		return true
	}
	if f.aboard--; f.aboard > 0 {
		f.first = f.first && !first
		return false
	}
	delete(fs.by, id)
	if f.before(time.Now()) {
		cause := context.Cause(ctx)
		if cause == nil { // the timer was quicker than the context's
			cause = context.DeadlineExceeded
		}
		f.cancel(cause)
	}
	return true
}
