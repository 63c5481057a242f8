package middleware

import (
	"context"
	"time"

	"postbus.example/endpoint"
)

// The stack of a client has Log, Timeout, Retry and Breaker side by side. Each as a layer of its own would have functions on the
// stack of every call that waits, a guard between it and the next one, and an end of its own to see to: 1.1 KB, which makes the
// goroutine's stack twice as large. So Retry does for the first attempt what those next to it would do, and in their order:
//
//	log ──► timeout ──► first attempt ──► breaker ──► next
//	                └─► further ones, see retrial: through the Breaker as a layer of its own
//
// layers are those that are there, each nil or not.
type layers struct {
	log     *callLog // outside
	timeout *timeout // of the call with all of its attempts
	breaker *breaker // inside
}

// around is the layers, each by itself, for calls that somebody else tries again.
func (l *layers) around(next endpoint.Handler) endpoint.Handler {
	var mws []endpoint.Middleware
	if l.log != nil {
		mws = append(mws, l.log.middleware)
	}
	if l.timeout != nil {
		mws = append(mws, l.timeout.middleware)
	}
	if l.breaker != nil {
		mws = append(mws, l.breaker.middleware)
	}
	return endpoint.Chain(mws...)(next)
}

// first is a first attempt, and the call that it is of. Most calls wait in it, so it has little on the stack.
type first struct {
	*retryBinding

	ctx    context.Context // of the call
	call   *endpoint.Call
	start  time.Time
	cause  *timeoutError   // whose bound the attempt has; nil: it has none
	header endpoint.Header // the call's, before inner middleware wrote to it
	trace  string          // likewise
	pass   passage
	ended  bool // the call has, with a reply or an error
}

// handler is Retry, and the layers next to it, around one caller. What comes before and after the wait is in functions that are not
// inlined. Nor is this one: in a copy of it WithDeadline would not be either, and that is an allocation more.
//
//go:noinline
func (b *retryBinding) handler() endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (reply any, err error) {
		if c.Side != endpoint.ClientSide || !c.TakeRetries() {
			return b.plain(ctx, c)
		}
		var f first // not of a literal, which would stand on the stack beside it
		f.retryBinding, f.ctx, f.call = b, ctx, c
		own, release := ctx, context.CancelFunc(func() {})
		if bound := f.begin(); f.cause != nil {
			own, release = endpoint.WithDeadline(ctx, bound, f.cause)
		}
		defer func() {
			switch {
			case f.ended && f.log != nil:
				f.log.end(f.ctx, f.call, f.start, err)
			case f.ended:
			default:
				f.pass.gone()
				release()
				if f.log != nil {
					f.log.gone(f.ctx, f.call, f.start, recover())
				}
			}
		}()
		if err = f.enter(); err == nil {
			reply, err = f.once(own, c)
			f.pass.leave(own, c, err)
		}
		release()
		if err != nil {
			reply, err = f.again(own, err)
		} else {
			f.met()
		}
		f.ended = true
		return reply, err
	}
}

// begin returns the bound of the attempt, its own or that of the call.
//
//go:noinline
func (f *first) begin() (bound time.Time) {
	c := f.call
	f.start = c.Now()
	budget := f.of(c)
	budget.deposit(f.start)
	if c.Header.Len() > 0 { // inner middleware writes to the first attempt's, which is the call's own
		f.header = c.Header.Clone()
	}
	f.trace = c.Trace()
	end := f.timeout.within(f.ctx, c, f.start)
	if bound = f.bind(f.ctx, c, budget, f.start, end, f.policy.Attempts == 1); !bound.IsZero() {
		f.cause = errAttempt
	} else if bound = end; !end.IsZero() {
		f.cause = f.timeout.cause
	}
	return bound
}

// enter asks the breaker, if there is one.
//
//go:noinline
func (f *first) enter() (err error) {
	if f.breaker != nil {
		f.pass, err = f.breaker.enter(&f.circuits, f.call)
	}
	return err
}

// met lets those go who wait for the service.
func (f *first) met() {
	if f.gates.waiting.Load() > 0 {
		f.gates.opened(gateKey(f.ctx, f.call))
	}
}

// again is all that comes after the attempt, which failed.
//
//go:noinline
func (f *first) again(own context.Context, err error) (any, error) {
	t := &retrial{
		retryBinding: f.retryBinding, call: f.call, budget: f.of(f.call), header: f.header, trace: f.trace,
		start: f.start, cause: errAttempt, tries: 1,
	}
	if f.cause != nil {
		t.cause = f.cause
		t.bound, _ = own.Deadline()
	}
	return t.after(f.ctx, err)
}
