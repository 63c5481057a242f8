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
	x := &callContext{parent: parent, deadline: deadline, cause: cause}
	x.nature.Store(derived)
	return x
}
