package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// Serve serves an endpoint on a subject, or a service's endpoints below it: all or nothing. When it returns, the broker
// knows. Faults of construction, a bad or taken subject, and types that no codec can carry are refused, all at once, naming the
// culprit; a bus that drains, or has no connection just now, refuses everything.
//
// A handler may block. One whose calls are known to take microseconds is run by who reads the connection, as long as that holds;
// if it blocks then, what comes behind it is held up for 2 ms at most.
func (b *Bus) Serve(subject string, s endpoint.Servable) error {
	if s == nil {
		return fault(subject, endpoint.InvalidArgument, errNothing)
	}
	ops, errs := b.build(subject, s)
	b.pulse.start()
	b.serving.Lock()
	defer b.serving.Unlock()
	about := []string{b.id} // the verbs of this very instance
	for _, op := range ops {
		about = append(about, quoted(op.subject), quoted(wire.BatchSubject(op.subject)))
	}
	h := b.listen(about...)
	defer h.end()
	err := b.enter(subject, ops, errs)
	if err == nil {
		err = b.confirm(subject, ops, h)
	}
	if err != nil {
		b.undo(ops)
		return err
	}
	b.openRoots(ops)
	return nil
}

var errNothing = errors.New("nothing to serve")

// fault is what is wrong with what Serve was given.
func fault(base string, code endpoint.Code, err error) error {
	reason := endpoint.ReasonConstruction
	if code == endpoint.Unimplemented {
		reason = endpoint.ReasonUnsupported
	}
	return code.Wrap(err, fmt.Sprintf("serve %.80q: %v", base, err)).WithReason(reason).WithOutcome(endpoint.NotSent)
}

// serveError is what the connection had to say to Serve.
func serveError(base string, e *endpoint.Error) error {
	return e.Code.Wrap(e, fmt.Sprintf("serve %.80q: %v", base, e)).WithReason(e.Reason()).WithOutcome(e.Outcome())
}

// build makes the operations and collects what is wrong with them. It runs the user's code, middleware that may use the
// bus itself, so it holds no lock.
func (b *Bus) build(base string, s endpoint.Servable) (ops []*operation, errs []error) {
	mw := b.Middleware()
	for _, ep := range s.Endpoints() {
		op, err := b.newOperation(base, ep, mw)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ops = append(ops, op)
	}
	return ops, errs
}

// enter takes the operations in and subscribes them, after everything has been checked.
func (b *Bus) enter(base string, ops []*operation, errs []error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != running {
		return endpoint.Unavailable.Errorf("serve %.80q: the bus is draining", base).WithReason(reasonDraining).WithOutcome(endpoint.NotSent)
	}
	if err := b.check(base, ops, errs); err != nil {
		return err
	}
	if !b.connected() {
		return serveError(base, b.offline())
	}
	if err := b.register(ops); err != nil {
		return fault(base, endpoint.InvalidArgument, err)
	}
	if err := b.subscribe(ops); err != nil {
		b.forget(ops)
		return serveError(base, err)
	}
	return nil
}

// undo takes back what was subscribed. Calls that came meanwhile are refused.
func (b *Bus) undo(ops []*operation) {
	b.mu.Lock()
	b.forget(ops)
	b.mu.Unlock()
	ops = slices.DeleteFunc(ops, func(op *operation) bool {
		never := op.member.Load() == nil
		if never {
			op.cancel(nil)
		}
		return never
	})
	now, cancel := context.WithCancel(context.Background())
	cancel()
	defer b.dropRoots(now, ops)
	_ = b.finish(now, ops) // what doesn't end even so is nobody's concern: Serve has failed for another reason
}

// check joins what build found with what is wrong here and now (lock held).
func (b *Bus) check(base string, ops []*operation, errs []error) error {
	seen := map[string]bool{}
	for _, op := range ops {
		if seen[op.subject] || b.served[op.subject] != nil {
			errs = append(errs, fmt.Errorf("subject %q is served already", op.subject))
		}
		seen[op.subject] = true
	}
	if len(ops) == 0 && len(errs) == 0 {
		errs = append(errs, errNothing)
	}
	if err := errors.Join(errs...); err != nil {
		code := endpoint.InvalidArgument
		if errors.Is(err, endpoint.Unimplemented) {
			code = endpoint.Unimplemented
		}
		return fault(base, code, err)
	}
	return nil
}

// subscribe starts the operations (lock held). The endpoints come last: of several things that the broker denies, its last
// word is then about one of them.
func (b *Bus) subscribe(ops []*operation) *endpoint.Error {
	for _, op := range ops {
		if s := b.services[op.spec.Service]; len(s.subs) == 0 {
			if err := b.announce(s); err != nil {
				return err
			}
		}
	}
	for _, op := range ops {
		if err := op.join(); err != nil {
			return b.sendError(err, 0)
		}
	}
	return nil
}

// confirm waits until the broker knows of the operations, without the lock: that takes a round trip, or long when the
// connection is away.
func (b *Bus) confirm(base string, ops []*operation, h *hearing) error {
	if err := b.nc.FlushTimeout(5 * time.Second); err != nil {
		return serveError(base, b.away(endpoint.Unavailable.Wrap(err, "the broker does not answer").WithReason(endpoint.ReasonDisconnected)))
	}
	for _, said := range h.complaints(context.Background()) {
		for _, op := range ops {
			if strings.Contains(said.Error(), `Subscription to `+quoted(op.subject)) {
				denied := endpoint.PermissionDenied.Wrap(said, "this client may not subscribe to "+op.subject)
				return serveError(base, denied.WithOutcome(endpoint.NotExecuted))
			}
			if strings.Contains(said.Error(), `Subscription to `+quoted(wire.BatchSubject(op.subject))) {
				b.unframed(op) // calls go alone
				_ = op.member.Load().frames.Unsubscribe()
			}
		}
		if strings.Contains(said.Error(), "Subscription") && strings.Contains(said.Error(), b.id) { // it is served all the same
			b.silent(ops)
		}
	}
	return nil
}
