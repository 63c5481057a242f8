package endpoint

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"postbus.example/codec"
)

// The defaults of admission, the same as the bus has.
const (
	DefaultConcurrency = 1024
	DefaultBacklog     = 4096
	DefaultBacklogWait = time.Second
)

// muxOp is one endpoint served by a Mux.
type muxOp struct {
	base    string // what Serve was given
	subject string
	id      string
	spec    *Spec
	handler Handler
	codecs  codec.Set
	info    EndpointInfo
	meter   Meter

	slots   chan struct{} // one for each call that may run
	backlog int64
	maxWait time.Duration
	waiting atomic.Int64
	running sync.WaitGroup
}

func (op *muxOp) limit(s *Spec) {
	n, backlog, wait := DefaultConcurrency, DefaultBacklog, DefaultBacklogWait
	if s.Concurrency > 0 {
		n = s.Concurrency
	}
	if s.Backlog != 0 {
		backlog = max(s.Backlog, 0)
	}
	if s.BacklogWait > 0 {
		wait = s.BacklogWait
	}
	op.slots, op.backlog, op.maxWait = make(chan struct{}, n), int64(backlog), wait
}

func (op *muxOp) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		op.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return contextFault(ctx, ctx.Err())
	}
}

// muxItem is what crosses: bytes, as on a real wire.
type muxItem struct {
	body      []byte
	mediaType string
	header    Header // of the first item out
	first     bool
}

// muxCall is one exchange: the caller's goroutine on one side, the handler's on the other.
type muxCall struct {
	op     *muxOp
	client *Call
	server *Call
	cancel context.CancelFunc
	out    chan muxItem
	in     chan muxItem
	feed   sync.Once
	sent   bool          // the reply header went with an item
	active atomic.Int64  // when the last item passed, in nanoseconds after start
	state  atomic.Int32  // queued, then running or abandoned
	done   chan struct{} // closed when the handler has ended; result is set then
	result muxResult
	broken chan struct{} // closed when the caller's own input failed; fault is set then
	fault  error
}

type muxResult struct {
	reply           muxItem
	header, trailer Header
	err             *Error
}

const (
	muxQueued int32 = iota
	muxRunning
	muxAbandoned
)

func (op *muxOp) call(ctx context.Context, c *Call, set codec.Set) (any, error) {
	x, err := op.exchange(c)
	if err != nil {
		return nil, err
	}
	deadline, bounded := ctx.Deadline()
	base, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	left := func() { // a deadline is not a cancellation: the handler has its own, and sees that it passed
		if !bounded || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
		}
	}
	defer left()
	defer context.AfterFunc(ctx, left)()
	if t := op.spec.Timeout; t > 0 && (deadline.IsZero() || x.server.received.Add(t).Before(deadline)) {
		deadline = x.server.received.Add(t)
	}
	own := x.server.Begin(base, deadline)
	op.running.Add(1)
	go x.serve(own)
	c.SetInstance(op.id)
	return x.receive(ctx, set)
}

// receive is the caller's side until the call has ended.
func (x *muxCall) receive(ctx context.Context, set codec.Set) (any, error) {
	idle := x.idle()
	timer := time.NewTimer(max(idle, 1))
	defer timer.Stop()
	if idle == 0 {
		timer.Stop()
	}
	for {
		select {
		case it := <-x.out:
			if err := x.deliver(it, set); err != nil {
				x.cancel()
				return nil, err
			}
		case <-x.done:
			return x.finish(set)
		case <-x.broken:
			x.cancel()
			return nil, x.fault
		case <-timer.C:
			if rest := idle - x.quiet(); rest > 0 {
				timer.Reset(rest)
				continue
			}
			x.cancel()
			return x.silent(idle)
		case <-ctx.Done():
			return x.abandon(ctx, set)
		}
	}
}

// abandon ends the caller's side when its context has ended.
func (x *muxCall) abandon(ctx context.Context, set codec.Set) (any, error) {
	select {
	case <-x.done: // the handler was quicker after all
		return x.finish(set)
	default:
	}
	err := ContextError(ctx)
	if x.state.CompareAndSwap(muxQueued, muxAbandoned) {
		err = neverRan(err)
	}
	if x.client.Spec.Kind == GatherKind && err.Code == DeadlineExceeded {
		return nil, x.client.Send(x.missing(err.outcome))
	}
	return nil, err
}

// silent ends what was quiet for too long: a gather has then heard all it will, a stream has failed.
func (x *muxCall) silent(limit time.Duration) (any, error) {
	if x.client.Spec.Kind == GatherKind {
		return nil, x.client.Send(x.missing(MaybeExecuted))
	}
	return nil, DeadlineExceeded.Errorf("no item for %v", limit).WithReason(ReasonIdle)
}

func (x *muxCall) missing(o Outcome) *Gathered {
	g := Missing(map[string]*Error{x.op.id: nil})[0]
	if e, ok := find(g.Err); ok {
		g.Err = e.WithOutcome(o)
	}
	return g
}

// idle returns how long the exchange may be quiet, 0 for ever.
func (x *muxCall) idle() time.Duration {
	a, b := x.client.Spec.IdleTimeout, x.op.spec.IdleTimeout
	if x.client.Spec.Kind == GatherKind {
		a = x.client.Spec.Stall
	}
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

func (x *muxCall) touch() { x.active.Store(int64(time.Since(x.server.received))) }

func (x *muxCall) quiet() time.Duration {
	return time.Since(x.server.received) - time.Duration(x.active.Load())
}

// exchange checks the request and makes the server's call of it.
func (op *muxOp) exchange(c *Call) (*muxCall, error) {
	if err := c.Header.Fault(InvalidArgument); err != nil {
		return nil, err.WithOutcome(NotSent)
	}
	if servedKind(c.Spec.Kind) != op.spec.Kind {
		return nil, Unimplemented.Errorf("%s is %v, not %v", op.subject, op.spec.Kind, c.Spec.Kind).WithOutcome(NotExecuted)
	}
	body, mediaType, err := c.Encoded()
	if err != nil {
		return nil, err
	}
	with, ok := op.codecs.Lookup(mediaType)
	if !ok && !op.spec.reqPay {
		return nil, InvalidArgument.Errorf("%s does not take %.80q; it takes %q", op.subject, mediaType, op.codecs.Names()).
			WithReason(ReasonMediaType).WithOutcome(NotExecuted)
	}
	if !ok && !op.spec.respPay {
		with = op.codecs.Default() // nobody can answer in a type that only a Payload can have
	}
	x := &muxCall{op: op, client: c, out: make(chan muxItem), in: make(chan muxItem), done: make(chan struct{}), broken: make(chan struct{})}
	x.server = NewCall(op.spec, op.subject, ServerSide)
	x.server.Header, x.server.Attempt = c.Header.Clone(), c.Attempt
	x.server.SetBody(bytes.Clone(body), mediaType, with)
	x.server.SetCodecs(op.codecs)
	x.server.SetInstance(op.id)
	x.server.SetReceived(time.Now())
	x.server.SetTrace(c.Trace())
	return x, nil
}

func (x *muxCall) deliver(it muxItem, set codec.Set) error {
	if it.first {
		x.client.Reply = it.header
	}
	m, err := x.client.DecodeItem(it.body, it.mediaType, set)
	if err != nil {
		return err
	}
	defer x.touch()
	return x.client.Send(m)
}

// finish gives the caller the handler's result. The channel done orders the memory.
func (x *muxCall) finish(set codec.Set) (any, error) {
	c, r := x.client, &x.result
	if c.Trailer = r.trailer; !x.sent {
		c.Reply = r.header
	}
	if c.Spec.Kind == GatherKind {
		g := &Gathered{Instance: x.op.id}
		switch {
		case r.err != nil && r.err.Code == DeadlineExceeded && c.root.own().past():
			g = x.missing(r.err.outcome) // the time of all is up
		case r.err != nil:
			g.Err = r.err
		default:
			g.Message, g.Err = c.SetReply(r.reply.body, r.reply.mediaType, set)
		}
		return nil, c.Send(g)
	}
	select {
	case <-x.broken: // whatever the handler made of it: the caller did not say all it wanted to
		return nil, x.fault
	default:
	}
	if r.err != nil {
		return nil, r.err
	}
	if c.Spec.Kind.StreamsOut() {
		return nil, nil
	}
	return c.SetReply(r.reply.body, r.reply.mediaType, set)
}
