package bus

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// clientStream is the caller's end of a stream.
type clientStream struct {
	line
	p      *proxy
	c      *endpoint.Call
	subj   string // where the request goes
	slot   *slot
	secret uint64
	until  time.Time     // the caller's deadline, zero: none
	opened chan struct{} // closed when it is

	// guarded by the line's lock
	holder   *holder // who has the stream, nil before it is open
	canceled bool    // the service was told
	instance string
	fresh    atomic.Bool // the call does not know yet what follows
	header   endpoint.Header
	trailer  endpoint.Header
	final    error // what the end says
}

// stream calls an endpoint that is a stream: it returns when the stream is over, whatever the connection does.
func (p *proxy) stream(ctx context.Context, c *endpoint.Call, to string) (any, error) {
	body, mediaType, err := c.Encoded()
	if err != nil {
		return nil, err
	}
	if p.bus.buffers && !p.bus.nc.IsConnected() { // its reconnect buffer would send the request later
		return nil, p.bus.offline()
	}
	x := &clientStream{p: p, c: c, subj: to, opened: make(chan struct{})}
	x.prepare(p.bus, endpoint.Internal, x.tellService)
	x.until, _ = ctx.Deadline()
	x.out = stream.Sender{}
	if c.Spec.Kind.StreamsIn() {
		x.out = stream.NewSender(wire.DefaultGrant())
	}
	x.in = stream.NewReceiver(wire.DefaultGrant())
	if err := x.open(ctx, body, mediaType); err != nil {
		return nil, err
	}
	var failure error
	defer func() { x.close(ctx, failure) }() // also when the consumer's loop ends its goroutine
	if c.Spec.Kind.StreamsIn() {
		go x.upload(ctx)
	}
	reply, err := x.run(ctx)
	failure = err
	return reply, err
}

// run hands items to the consumer until the stream ends.
func (x *clientStream) run(ctx context.Context) (any, error) {
	var single item
	n := 0
	for {
		it, err := x.recv(ctx)
		x.results()
		switch {
		case err == io.EOF: //nolint:errorlint // itself: the end
			return x.finish(single, n)
		case err != nil:
			return nil, err
		}
		if n++; !x.c.Spec.Kind.StreamsOut() {
			if single = it; n > 1 {
				return nil, x.fault(errTwoReplies)
			}
			x.used(it)
			continue
		}
		m, err := x.c.DecodeItem(it.body, it.mediaType, x.bus.codecs)
		if err != nil {
			return nil, err
		}
		if err := x.c.Send(m); err != nil {
			return nil, err
		}
		x.used(it)
	}
}

var (
	errTwoReplies = errors.New("more than one reply to a stream of requests")
	errNoReply    = errors.New("no reply to a stream of requests")
)

// results gives the call what is known of the service.
func (x *clientStream) results() {
	if !x.fresh.Load() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.instance != "" {
		x.c.SetInstance(x.instance)
	}
	x.c.Reply, x.c.Trailer = x.header.Clone(), x.trailer.Clone()
	x.fresh.Store(false)
}

// finish is what the end says.
func (x *clientStream) finish(single item, n int) (any, error) {
	x.mu.Lock()
	err := x.final
	x.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case x.c.Spec.Kind.StreamsOut():
		return nil, nil
	case n == 0:
		return nil, x.fault(errNoReply)
	}
	return x.c.SetReply(single.body, single.mediaType, x.bus.codecs)
}

// close gives back what the stream holds, and tells the service where it can't know that its caller has left.
func (x *clientStream) close(ctx context.Context, failure error) {
	x.stop()
	x.mu.Lock()
	knows := x.eof || x.canceled || failure != nil && endpoint.OutcomeOf(failure) == endpoint.NotExecuted
	x.mu.Unlock()
	if x.until.IsZero() {
		x.until = time.Now().Add(3 * x.bus.heartbeat) // a service that opens it later is told by its own silence
	}
	if knows || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		x.bus.mux.close(x.slot)
		return
	}
	x.bus.mux.leave(x.slot, x.until)
}

// tellService ends the handler of a line that broke, while the consumer may still be busy. It may be called with the slot's lock
// held, which must not be taken before that of who cancels.
func (x *clientStream) tellService(error) {
	x.mu.Lock()
	h := x.holder
	x.canceled = h != nil
	x.mu.Unlock()
	if h != nil {
		go x.bus.mux.acked.cancel(h)
	}
}

// upload sends the input's items, from when the stream is open. Only a true end of the input closes the half: to a handler a
// stream that broke off never looks complete.
func (x *clientStream) upload(ctx context.Context) {
	select {
	case <-x.opened:
	case <-x.ended:
		return
	case <-ctx.Done():
		return
	}
	_, asked, _ := x.c.Encoded()
	for {
		m, err := x.c.Recv()
		if err == io.EOF { //nolint:errorlint // itself: what wraps one is a stream that broke off
			x.half(ctx)
			return
		}
		var body []byte
		var mediaType string
		if err == nil {
			body, mediaType, err = x.c.EncodeItem(m)
		}
		if err == nil {
			if mediaType == asked {
				mediaType = ""
			}
			err = x.put(ctx, body, mediaType)
		}
		if err != nil {
			x.abort(err)
			return
		}
	}
}

// put sends one item.
func (x *clientStream) put(ctx context.Context, body []byte, mediaType string) error {
	seq, to, err := x.turn(ctx, false)
	if err != nil {
		return err
	}
	switch err := x.publishItem(ctx, to, seq, mediaType, body); {
	case err == nil:
		x.sent(len(body))
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return x.bus.sendError(err, len(body)+wire.Size(wire.WriteItem(seq, mediaType))).WithOutcome(endpoint.MaybeExecuted)
	default:
		return x.bus.noPlaceOr(ctx, err).WithOutcome(endpoint.MaybeExecuted)
	}
}

// half says that all items were sent.
func (x *clientStream) half(ctx context.Context) {
	x.mu.Lock()
	to, count := x.to, x.out.Count()
	x.mu.Unlock()
	if err := x.publish(ctx, to, wire.WriteHalf(count), nil); err != nil {
		return // the connection is lost, and the stream with it; or it is over
	}
	x.mu.Lock()
	x.out.End()
	x.mu.Unlock()
}

// abort ends the stream for the input's sake: whatever has come, the caller did not say all it wanted to.
func (x *clientStream) abort(err error) {
	x.mu.Lock()
	ours := x.breaks(err)
	if ours {
		x.queue, x.head = nil, 0
	}
	x.mu.Unlock()
	if ours {
		x.hurt(err)
	}
}
