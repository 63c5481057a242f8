package endpoint

import (
	"context"
	"time"
)

// WithDeadline is [context.WithDeadlineCause] for middleware: the context it returns makes its channel and its timer only
// when somebody asks for them, and transports that use [Wait] do not, so a bounded call costs one small allocation, or two if the function is kept. The
// sooner deadline, the parent's or this one, counts; a nil cause means [context.DeadlineExceeded]. Call the
// function when the work is done: it releases what there is, and ends the context for whoever waits on Done.
func WithDeadline(parent context.Context, deadline time.Time, cause error) (context.Context, context.CancelFunc) {
	x := derive(parent, deadline, cause)
	return x, x.end // inlined, so that a function that is only deferred is no allocation
}

func derive(parent context.Context, deadline time.Time, cause error) *callContext {
	if d, ok := parent.Deadline(); ok && !deadline.Before(d) {
		deadline, cause = d, nil
	}
	var x *callContext
	if cause == nil {
		x = &callContext{parent: parent, deadline: deadline}
	} else {
		b := &bound{callContext{deadline: deadline}, caused{parent, cause}}
		x, b.parent = &b.callContext, &b.caused
	}
	x.nature.Store(derived)
	return x
}

// bound is a context whose deadline has a cause.
type bound struct {
	callContext
	caused caused // its parent
}

// caused is a parent and the cause of its child's deadline, for [context.Cause].
type caused struct {
	context.Context
	cause error
}

// above returns what is the parent in truth, and the cause of the deadline, nil for none.
func above(parent context.Context) (context.Context, error) {
	if c, ok := parent.(*caused); ok {
		return c.Context, c.cause
	}
	return parent, nil
}
