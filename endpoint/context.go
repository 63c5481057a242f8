package endpoint

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// callContext is the context of one call. It lives inside the Call and makes the real context, with its channel and
// timer, only when somebody asks for Done: most handlers and all unary callers get by with the deadline alone, so a call
// costs no allocation for its context.
//
// It is one of the allocator's 64 bytes; one field more would cost each call of a service 16.
type callContext struct {
	parent   context.Context // a caused one if the deadline has a cause
	deadline time.Time       // zero: none
	call     *Call           // what FromContext finds; nil on the client's side
	live     atomic.Pointer[liveContext]
	ended    atomic.Bool // set before live is looked at, which is set before this is looked at: one of both sees the other
	nature   nature
}

type liveContext struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // releases the timer
}

var _ context.Context = (*callContext)(nil)

func (x *callContext) Deadline() (time.Time, bool) { return x.deadline, !x.deadline.IsZero() }

func (x *callContext) Done() <-chan struct{} { return x.materialize().Done() }

func (x *callContext) Err() error { return x.errAt(time.Time{}) }

// errAt is Err for who has looked at the clock just now; who has not brings no time.
func (x *callContext) errAt(now time.Time) error {
	if l := x.live.Load(); l != nil {
		return l.Err()
	}
	if now.IsZero() && !x.deadline.IsZero() {
		now = time.Now()
	}
	if x.ended.Load() || x.parent.Err() != nil || !x.deadline.IsZero() && !now.Before(x.deadline) {
		return x.materialize().Err()
	}
	return nil
}

// past reports whether the deadline has come, which a timer may find a little later.
func (x *callContext) past() bool { return !x.deadline.IsZero() && !time.Now().Before(x.deadline) }

func (x *callContext) Value(key any) any {
	if key == any(callKey{}) && x.call != nil {
		if !x.nature.ask() {
			return nil
		}
		return x.call
	}
	if l := x.live.Load(); l != nil {
		return l.Value(key) // so that context.Cause finds the cause
	}
	return x.parent.Value(key)
}

func (x *callContext) materialize() *liveContext {
	if l := x.live.Load(); l != nil {
		return l
	}
	parent, cause := above(x.parent)
	ctx, cancel := context.WithCancelCause(parent)
	l := &liveContext{Context: ctx, cancel: cancel, stop: func() {}}
	if !x.deadline.IsZero() {
		l.Context, l.stop = context.WithDeadlineCause(ctx, x.deadline, cause)
	}
	if !x.live.CompareAndSwap(nil, l) { // somebody else was quicker
		l.release()
		l = x.live.Load()
	}
	if x.ended.Load() {
		l.release()
	}
	return l
}

// release ends what there is, and gives it back.
func (l *liveContext) release() {
	l.cancel(context.Canceled)
	l.stop()
}

// String keeps %v away from the fields, which other goroutines change.
func (x *callContext) String() string { return "the context of a call" }

// cancel ends the context early; the cause is what context.Cause returns.
func (x *callContext) cancel(cause error) { x.materialize().cancel(cause) }

// end releases the context when the call is over.
func (x *callContext) end() {
	x.ended.Store(true)
	if l := x.live.Load(); l != nil {
		l.release()
	}
}

// Begin makes the call's own context below parent: it ends at the deadline (zero: parent's), when parent ends, by Cancel
// and by End. Handlers find the call in it. It is for transports, once for each Call.
func (c *Call) Begin(parent context.Context, deadline time.Time) context.Context {
	if d, ok := parent.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	return c.begin(parent, deadline)
}

// Cancel ends the context of Begin with a cause; that of the first attempt is the one that all share. It is for transports.
func (c *Call) Cancel(cause error) {
	if x := c.root.own(); x.parent != nil {
		x.cancel(cause)
	}
}

// Wait splits what ends ctx into its deadline and a channel for everything else, so that a transport waits with a timer
// of its own instead of paying for one in the context. The channel may be nil; the deadline is zero if there is none.
//
// A caller's own context is ended by nobody else while its handler runs, so its parent's channel is enough; the parent may
// be a handler's context, which its transport cancels: that one must be asked for its own.
func Wait(ctx context.Context) (time.Time, <-chan struct{}) {
	ctx = bounds(ctx)
	if x, ok := ctx.(*callContext); ok && x.call == nil && x.live.Load() == nil {
		switch {
		case x.nature.Load() != derived:
			return x.deadline, x.parentDone()
		case !x.ended.Load(): // a middleware's bound below the caller's own context
			parent, _ := above(x.parent)
			_, done := Wait(parent)
			return x.deadline, done
		}
	}
	d, _ := ctx.Deadline()
	return d, ctx.Done()
}

// parentDone returns the channel of the parent of a caller's own context. Bounds that were set on a context of another kind
// make none: their deadline is the sooner one already. Those below a call do, since its transport may cancel that one.
func (x *callContext) parentDone() <-chan struct{} {
	for p := x.parent; ; {
		p, _ = above(p)
		b, ok := p.(*callContext)
		switch {
		case !ok:
			return p.Done()
		case b.nature.Load() != derived || b.live.Load() != nil || b.ended.Load():
			return x.parent.Done()
		}
		p = b.parent
	}
}

type (
	callKey     struct{}
	headerKey   struct{}
	instanceKey struct{}
)

// FromContext gives a handler its call: headers, subject, attempt, instance. It is nil outside of handlers, and may be nil for
// who asks first when the handler has returned.
func FromContext(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// WithHeader adds request metadata to the calls made with the context: names and values in turn; a name without a value
// gets an empty one. Faults, reserved names among them, are reported by the call (invalid_argument, NotSent).
func WithHeader(ctx context.Context, kv ...string) context.Context {
	old, _ := ctx.Value(headerKey{}).([]field)
	fields := slices.Clone(old)
	for i := 0; i < len(kv); i += 2 {
		f := field{name: kv[i]}
		if i+1 < len(kv) {
			f.value = kv[i+1]
		}
		fields = append(fields, f)
	}
	return context.WithValue(ctx, headerKey{}, fields)
}

// HeaderFrom returns an independent copy of what WithHeader set, empty if nothing. It is for bridges, which must not put
// the word of a peer beside that of this process.
func HeaderFrom(ctx context.Context) Header {
	fields, _ := ctx.Value(headerKey{}).([]field)
	return Header{slices.Clone(fields)}
}

// WithInstance directs the calls made with the context to one instance, by its id, instead of any member of the queue
// group. An empty id takes the direction back.
func WithInstance(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, instanceKey{}, id)
}

// InstanceFrom returns the id that WithInstance set, "" if none. It is for transports.
func InstanceFrom(ctx context.Context) string {
	id, _ := ctx.Value(instanceKey{}).(string)
	return id
}
