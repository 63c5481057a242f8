package bus

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

// What a caller that knows no streams gets at most.
const (
	plainItems = 1024
	plainBytes = 8 << 20
)

// serverStream is the service's end of a stream.
type serverStream struct {
	line
	op    *operation
	c     *endpoint.Call
	j     *job
	meta  wire.Request
	id    uint64 // in the table, 0 if it is not there
	epoch uint64 // of the connection that it began on
	plain bool   // its caller knows no streams
	asked string // the media type that needs no saying
	heads bool   // the reply's headers were sent
}

// runStream takes one stream from request to end. It is called by a worker, for as long as the stream lives.
func (op *operation) runStream(j job) {
	op.meter.Run(1)
	c := endpoint.NewCall(op.spec, op.subject, endpoint.ServerSide)
	c.SetReceived(j.received)
	c.SetInstance(op.bus.id)
	x := &serverStream{op: op, c: c, j: &j, epoch: op.bus.up.Epoch()}
	x.prepare(op.bus, endpoint.InvalidArgument, func(err error) { c.Cancel(err) })
	x.to = j.msg.Reply
	var failed *endpoint.Error
	ended := false
	defer func() {
		p := recover()
		switch {
		case p != nil: // a middleware's, or the bus's own; the function's is an error already
			failed = x.end(endpoint.Recovered(p))
		case !ended: // the handler ended its goroutine
			failed = x.end(endpoint.Internal.Wrap(errGoexit, "").WithReason(endpoint.ReasonPanic))
		}
		op.bus.streams.leave(x.id)
		c.End()
		op.meter.Run(-1)
		if failed == nil || failed.Reason() != endpoint.ReasonExpired || failed.Outcome() == endpoint.Executed { // else it is counted already
			op.meter.Done(time.Since(j.received), failed)
		}
	}()
	ctx, err := x.accept()
	if err == nil {
		err = x.serve(ctx)
	}
	failed = x.end(err)
	ended = true
}

// accept reads the request's metadata and opens the stream, or says why it is not executed.
func (x *serverStream) accept() (context.Context, error) {
	op, c := x.op, x.c
	if err := readMeta(&x.j.arrival, &x.j.by.tokens, &x.meta, &c.Header); err != nil {
		op.bus.malformed.Add(1)
		return nil, err
	}
	word := streamWords[op.spec.Kind]
	if x.plain = x.meta.Stream == "" && !x.meta.Own && word == wire.StreamServer; !x.plain && x.meta.Stream != word {
		return nil, endpoint.Unimplemented.Errorf("%s is a stream of kind %s, Rpc-Stream is %.80q", op.subject, word, x.meta.Stream)
	}
	if x.j.msg.Reply == "" {
		return nil, endpoint.InvalidArgument.New("a stream needs a reply subject")
	}
	c.Attempt = x.meta.Attempt
	if x.meta.Trace != "" {
		c.SetTrace(x.meta.Trace)
	}
	deadline, err := x.deadline()
	if err != nil {
		return nil, err
	}
	if err := op.setBody(c, &x.j.arrival, &x.meta); err != nil {
		return nil, err
	}
	c.SetCodecs(op.codecs)
	c.SetMaxReply(int(op.bus.maxPayload.Load()))
	ctx := c.Begin(op.ctx, deadline)
	return ctx, x.open()
}

// deadline is the caller's or the endpoint's, none if neither has one. A stream that its caller can't wait for any more, having
// heard nothing for so long, is not begun.
func (x *serverStream) deadline() (time.Time, error) {
	op := x.op
	if x.meta.Heartbeat == 0 {
		x.meta.Heartbeat = wire.DefaultHeartbeat
	}
	if x.plain || x.meta.HasTimeout || op.spec.Timeout > 0 {
		return op.deadline(x.j, &x.meta)
	}
	bound := x.meta
	bound.HasTimeout, bound.Timeout = true, 3*x.meta.Heartbeat
	_, err := op.deadline(x.j, &bound)
	return time.Time{}, err
}

// open makes the stream known, and tells its caller where to.
func (x *serverStream) open() error {
	op := x.op
	x.asked = x.meta.MediaType
	if x.asked == "" {
		x.asked = wire.JSONType
	}
	if x.plain {
		x.out = stream.NewSender(wire.Grant{Messages: plainItems, Bytes: plainBytes})
		x.start(stream.NewWatch(time.Now(), 0, op.spec.IdleTimeout))
		return nil
	}
	select {
	case <-op.ready:
	case <-op.ctx.Done():
		return errShutdown
	}
	if op.control == "" {
		return endpoint.Unimplemented.New("the broker denies this instance the subjects that streams need").WithReason(endpoint.ReasonUnsupported)
	}
	credit := x.meta.Window
	if credit == (wire.Grant{}) {
		credit = wire.DefaultGrant()
	}
	x.mu.Lock()
	x.out = stream.NewSender(credit)
	if op.spec.Kind.StreamsIn() {
		x.in = stream.NewReceiver(wire.DefaultGrant())
	}
	x.mu.Unlock()
	op.bus.streams.enter(x)
	x.start(stream.NewWatch(time.Now(), x.meta.Heartbeat, op.spec.IdleTimeout))
	first := x.to
	err := op.bus.nc.PublishMsg(&nats.Msg{Subject: first, Reply: x.self, Header: nats.Header(wire.WriteOpen(op.bus.id))})
	if err != nil {
		return endpoint.Unavailable.Wrap(err, "the stream could not be opened").WithReason(endpoint.ReasonInstanceLost)
	}
	if strings.HasPrefix(first, wire.ImportRoot+".") { // the caller wants to know whether the import lets more through
		x.mu.Lock()
		to, granted := x.to, x.in.Granted() // its frames may be coming already
		x.mu.Unlock()
		x.post(to, x.self, wire.WriteBeat(0, granted))
	}
	return nil
}

// serve runs the chain.
func (x *serverStream) serve(ctx context.Context) error {
	x.c.SetStream(x.receive(ctx), x.send(ctx))
	reply, err := x.op.handler(ctx, x.c)
	if err == nil && ctx.Err() != nil { // whatever it made of that: what broke off must not look complete
		err = endpoint.ContextError(ctx)
	}
	if err != nil {
		if endpoint.CodeOf(err) == endpoint.Canceled && context.Cause(x.op.ctx) == error(errShutdown) { //nolint:errorlint // this very value
			return errShutdown.WithCause(err) // not the caller gave up, we do
		}
		return err
	}
	if !x.op.spec.Kind.StreamsOut() {
		body, mediaType, err := x.c.EncodedReply(reply)
		if err != nil {
			return err
		}
		if err := x.put(ctx, body, mediaType); err != nil {
			return err
		}
	}
	if !x.heads {
		if err := x.c.Reply.Fault(endpoint.Internal); err != nil {
			return err
		}
	}
	if err := x.c.Trailer.Fault(endpoint.Internal); err != nil {
		return err
	}
	return nil
}

// receive is the call's Recv.
func (x *serverStream) receive(ctx context.Context) func() (any, error) {
	return func() (any, error) {
		it, err := x.recv(ctx)
		if err != nil {
			return nil, err
		}
		x.used(it)
		return x.c.DecodeRequestItem(it.body, it.mediaType)
	}
}

// send is the call's Send.
func (x *serverStream) send(ctx context.Context) func(any) error {
	return func(m any) error {
		body, mediaType, err := x.c.EncodeItem(m)
		if err != nil {
			return err
		}
		return x.put(ctx, body, mediaType)
	}
}

// put sends one item, with the reply's headers if it is the first.
func (x *serverStream) put(ctx context.Context, body []byte, mediaType string) error {
	seq, to, err := x.turn(ctx, x.plain)
	if errors.Is(err, errCapped) {
		return endpoint.ResourceExhausted.Errorf("a caller without Rpc-Stream gets at most %d items and %d bytes", plainItems, plainBytes)
	}
	if err != nil {
		return err
	}
	if mediaType == x.asked {
		mediaType = ""
	}
	var h wire.Headers
	if !x.heads && x.c.Reply.Len() > 0 {
		if err := x.c.Reply.Fault(endpoint.Internal); err != nil {
			return err
		}
		h = wire.WriteItem(seq, mediaType)
		wire.WriteApp(h, &x.c.Reply)
		err = x.publish(ctx, to, h, body)
	} else {
		err = x.publishItem(ctx, to, seq, mediaType, body)
	}
	switch {
	case err == nil:
		x.heads = true
		x.sent(len(body))
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		x.bus.maxPayload.Store(x.bus.nc.MaxPayload())
		if h == nil {
			h = wire.WriteItem(seq, mediaType)
		}
		return endpoint.ResourceExhausted.Errorf("an item has %d bytes with its headers, the broker takes %d", len(body)+wire.Size(h), x.bus.nc.MaxPayload()).
			WithReason(endpoint.ReasonReplyTooLarge)
	default:
		return x.bus.noPlaceOr(ctx, err).WithOutcome(endpoint.Executed)
	}
}

// end sends the end and says what the call came to.
func (x *serverStream) end(err error) *endpoint.Error {
	x.mu.Lock()
	broke := x.broke
	x.mu.Unlock()
	x.stop()
	if broke != nil { // it knows better than who was stopped by it
		err = broke
	}
	var e *endpoint.Error
	if err != nil {
		e = x.verdict(err)
	}
	if x.j.msg.Reply != "" && !x.j.answered() {
		x.sendEnd(e)
	}
	return e
}

// verdict is what the caller is told, and logs what it can't be.
func (x *serverStream) verdict(err error) *endpoint.Error {
	e := x.c.Verdict(err)
	if e.Code == endpoint.Internal || e.Code == endpoint.Unknown {
		cause := err
		if known, ok := errors.AsType[*endpoint.Error](err); ok && known.Unwrap() != nil {
			cause = known.Unwrap() // it says more than what the caller is told
		}
		x.bus.report(slog.LevelError, "stream failed", slog.String("subject", x.op.subject), slog.String("code", e.Code.String()),
			slog.String("reason", e.Reason()), slog.Any("cause", cause))
	}
	return e
}

// sendEnd sends it; while there is no connection it is kept.
func (x *serverStream) sendEnd(e *endpoint.Error) {
	x.mu.Lock()
	to, count := x.to, x.out.Count()
	x.mu.Unlock()
	h := wire.Headers{}
	if !x.heads && x.c.Reply.Validate() == nil {
		wire.WriteApp(h, &x.c.Reply)
	}
	var trailer endpoint.Header
	if x.c.Trailer.Validate() == nil {
		trailer = x.c.Trailer
	}
	b := x.bus
	b.sendEnd(recipient{subject: to, tell: x.meta.Tell, since: time.Now(), waits: 3 * max(x.meta.Heartbeat, wire.MinHeartbeat)}, h, count, e, &trailer)
}

// sendEnd sends the end of a stream.
func (b *Bus) sendEnd(to recipient, h wire.Headers, count uint64, e *endpoint.Error, trailer *endpoint.Header) {
	if to.tell {
		h[wire.Instance] = []string{b.id}
	}
	err := wire.WriteEnd(h, count, e, trailer)
	if err == nil {
		if err = b.unreachable(); err == nil {
			err = b.publish(to.subject, h, nil)
		}
		err = b.keep(err, to, h, nil)
	}
	if err != nil {
		b.report(slog.LevelError, "end of a stream not sent", slog.Any("error", err))
		return
	}
	if strings.HasPrefix(to.subject, wire.ImportRoot+".") && b.unreachable() == nil {
		_ = b.nc.Publish(to.subject, nil) // frees the import's mapping
	}
}

// refuseStream answers a request that found no room.
func (op *operation) refuseStream(j job, reason string) {
	e := op.refusal(reason)
	if to := op.bus.sender(j.arrival); to.subject != "" {
		op.bus.sendEnd(to, wire.Headers{}, 0, e, &endpoint.Header{})
	}
}
