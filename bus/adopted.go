package bus

import (
	"context"
	"math"
	"sync"
	"time"

	"postbus.example/endpoint"
)

// On a connection that was adopted nobody hears the broker's complaints but its owner. What is left is the last one: a call
// that waits looks whether it is a new one, about its subject. It may be about another message to the same subject, and hidden
// by a later complaint: a call that fails so may have been executed, and one that does not may have been denied.

const (
	lookAfter = 10 * time.Millisecond // of waiting; then after twice, four times … as long, and at the deadline
	lookTime  = 5 * time.Millisecond
)

// lastWord reads the last error of a connection for all who want to know. nats.go holds the lock of that while it dials, and
// nobody waits for so long.
type lastWord struct {
	mu   sync.Mutex
	wait chan struct{} // closed when there is an answer; nil while nobody asks
	err  error
}

func (l *lastWord) look(read func() error) error {
	l.mu.Lock()
	wait := l.wait
	if wait == nil {
		wait = make(chan struct{})
		l.wait = wait
		go func() {
			err := read()
			l.mu.Lock()
			l.err, l.wait = err, nil
			l.mu.Unlock()
			close(wait)
		}()
	}
	l.mu.Unlock()
	t := time.NewTimer(lookTime)
	defer t.Stop()
	select {
	case <-wait:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.err
	case <-t.C:
		return nil
	}
}

// lastErrorOf returns what a call on an adopted connection compares with later.
func (b *Bus) lastErrorOf() error {
	if b.owned {
		return nil
	}
	return b.nc.LastError()
}

// lookPause is how long a call waits before it looks: for good on a connection of ours.
func (b *Bus) lookPause() time.Duration {
	if b.owned {
		return math.MaxInt64
	}
	return lookAfter
}

// over ends a call whose context ended.
func (r *sending) over(ctx context.Context, b *Bus) error {
	if time.Until(r.deadline) > 0 { // its caller left
		return endpoint.ContextError(ctx)
	}
	_, err := r.look(ctx, b)
	return err
}

// look ends a call by its deadline, or because its request was denied; else it returns how long to wait before the next look.
func (r *sending) look(ctx context.Context, b *Bus) (time.Duration, error) {
	if b.owned {
		return 0, endpoint.ContextError(ctx)
	}
	if r.slot.holder() == nil {
		err := b.last.look(b.nc.LastError)
		if subject, ok := deniedPublish(err); ok && err != r.before && subject == r.to { //nolint:errorlint // this very error
			return 0, publishDenied(r.to, err).WithOutcome(endpoint.MaybeExecuted)
		}
	}
	left := time.Until(r.deadline)
	if left <= 0 {
		return 0, endpoint.ContextError(ctx)
	}
	return min(left, max(time.Since(r.now), lookAfter)), nil // twice as late as this one
}
