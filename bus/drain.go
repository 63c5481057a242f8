package bus

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// drainTime bounds Drain and Stop for contexts without a deadline.
const drainTime = 30 * time.Second

// errShutdown is the cause of a handler's context that ends because the service does.
var errShutdown = endpoint.Unavailable.New("shutting down").WithReason(reasonDraining)

// lastWords is what a handler has left to answer once its context was canceled.
const lastWords = 500 * time.Millisecond

// Stop takes away what Serve was given for the subject: it leaves the queue group, finishes what was taken and runs, and
// may be served again. Handlers that don't end by the deadline (30 s if ctx has none) get their context canceled; those
// that go on even so are named in the error, and still answer. A subject that is not served is not_found.
func (b *Bus) Stop(ctx context.Context, subject string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	b.mu.Lock()
	var ops []*operation
	for _, op := range b.served {
		if op.base == subject {
			ops = append(ops, op)
		}
	}
	b.forget(ops)
	for _, op := range ops {
		b.leaving[op] = true // a Drain waits for them, too
	}
	b.mu.Unlock()
	if len(ops) == 0 {
		return endpoint.NotFound.Errorf("nothing was served on %.80q", subject)
	}
	if err := b.finish(ctx, ops); err != nil {
		return err // and a Drain has them to end
	}
	b.mu.Lock()
	for _, op := range ops {
		delete(b.leaving, op)
	}
	b.mu.Unlock()
	b.dropRoots(ctx, ops)
	return nil
}

// Drain ends the bus gracefully: services cease to be found, leave their queue groups, finish what they took; handlers
// that don't end by the deadline (30 s if ctx has none) get their context canceled with the cause "shutting down", and those
// that go on even so are named in the error; their callers are told that the service is shutting down, and what they reply
// later goes nowhere. Then replies are flushed, and the connection is closed if the bus owns it. Calls of handlers that
// still run work to the end. A second Drain waits for the first, up to its own context's end, and returns its error.
func (b *Bus) Drain(ctx context.Context) error {
	if !b.ending.Swap(true) {
		ctx, cancel := within(ctx)
		defer cancel()
		defer context.AfterFunc(b.hurry, cancel)()
		b.drainErr = b.drainAndTell(ctx)
		close(b.drained)
	}
	select {
	case <-b.drained:
		return b.drainErr
	default:
	}
	select {
	case <-b.drained:
		return b.drainErr
	case <-ctx.Done():
		return endpoint.ContextError(ctx)
	}
}

// Close ends the bus at once: running handlers get their context canceled and half a second to answer, what waits is
// refused. It puts an end to a Drain that goes on, too. Drain is the graceful way.
func (b *Bus) Close() error {
	b.rush()
	return b.Drain(context.Background())
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, drainTime)
}

// drainAndTell logs the beginning and the end, as other events of the connection are: quietly where nothing was served.
func (b *Bus) drainAndTell(ctx context.Context) error {
	level, start, id := slog.LevelDebug, time.Now(), slog.String("instance", b.id)
	if len(*b.taken.Load()) > 0 {
		level = slog.LevelInfo
	}
	b.report(level, "bus drains", id)
	err := b.drain(ctx)
	if err != nil {
		b.report(slog.LevelWarn, "bus drained", id, slog.Duration("took", time.Since(start)), slog.Any("error", err))
		return err
	}
	b.report(level, "bus drained", id, slog.Duration("took", time.Since(start)))
	return nil
}

func (b *Bus) drain(ctx context.Context) error {
	b.mu.Lock()
	b.state = draining
	ops := make([]*operation, 0, len(b.served))
	for _, op := range b.served {
		ops = append(ops, op)
	}
	for op := range b.leaving {
		ops = append(ops, op)
	}
	for _, s := range b.services {
		s.silence()
	}
	b.mu.Unlock()
	err := b.finish(ctx, ops)
	if err != nil {
		for _, op := range ops {
			op.abandon()
		}
	}
	waitAll(ctx.Done(), []<-chan struct{}{b.kept.settled()})
	b.pulse.stop()
	b.mux.part()
	b.mux.acked.end()
	b.closeRoots(ctx) // not sooner: what runs may be asked for, and canceled, to its end
	if b.connected() {
		_ = b.nc.FlushTimeout(flushTime(ctx))
	}
	_ = b.mux.sub.Unsubscribe()
	b.mux.end()
	b.mu.Lock()
	b.state = closed
	b.mu.Unlock()
	if b.owned {
		b.nc.Close()
	}
	b.nc.RemoveStatusListener(b.events)
	b.dropKept()
	return err
}

func flushTime(ctx context.Context) time.Duration {
	d, _ := ctx.Deadline()
	if ctx.Err() != nil {
		return lastWords
	}
	return min(5*time.Second, max(time.Until(d), lastWords))
}

// finish drains the subscriptions, then waits for what they took. When the time is up, what waits and what the broker
// delivered meanwhile is refused, what runs is canceled, and both have lastWords to come to an end.
func (b *Bus) finish(ctx context.Context, ops []*operation) error {
	lefts, ends := make([]<-chan struct{}, len(ops)), make([]<-chan struct{}, len(ops))
	before := b.connections()
	for i, op := range ops {
		lefts[i] = op.leave()
	}
	defer func() {
		for _, op := range ops {
			op.cancel(nil)
		}
	}()
	left := waitAll(ctx.Done(), lefts)
	haunted := b.exorcise(ops, before)
	for i, op := range ops {
		ends[i] = op.jobs.close()
	}
	if left && waitAll(ctx.Done(), ends) {
		return haunted
	}
	for _, op := range ops {
		op.jobs.drop(reasonDraining)
	}
	for _, op := range ops {
		op.cancel(errShutdown)
	}
	grace := make(chan struct{})
	defer time.AfterFunc(lastWords, func() { close(grace) }).Stop()
	waitAll(grace, lefts)
	for _, op := range ops {
		op.member.Load().quit()
	}
	if waitAll(grace, ends) {
		return haunted
	}
	var names []string
	for i, op := range ops {
		select {
		case <-ends[i]:
		default:
			names = append(names, fmt.Sprintf("%s (%d)", op.subject, op.meter.Running()))
		}
	}
	slices.Sort(names)
	return endpoint.DeadlineExceeded.Errorf("handlers would not end: %s", strings.Join(names, ", ")).WithReason(reasonDraining)
}

// waitAll waits for all ends; false if stop came first.
func waitAll(stop <-chan struct{}, ends []<-chan struct{}) bool {
	for _, e := range ends {
		select {
		case <-e:
			continue
		default:
		}
		select {
		case <-e:
		case <-stop:
			return false
		}
	}
	return true
}
