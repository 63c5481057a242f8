package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// operation is one endpoint served on a subject.
type operation struct {
	bus     *Bus
	base    string          // what Serve was given
	ctx     context.Context // of its handlers
	cancel  context.CancelCauseFunc
	subject string
	spec    *endpoint.Spec
	handler endpoint.Handler
	codecs  codec.Set
	any     bool // takes every media type: its request is a Payload
	bare    bool // there is no middleware
	info    endpoint.EndpointInfo
	inline  int // bytes of its schemas that stand in the INFO of its service
	meter   endpoint.Meter
	jobs    dispatcher
	parts   parts
	control string                     // what its control subjects begin with, "" where there are none
	ready   chan struct{}              // of what has control subjects: closed once they are there, or denied
	member  atomic.Pointer[membership] // nil before it is served
}

func (b *Bus) newOperation(base string, ep *endpoint.Endpoint, mw endpoint.Middleware) (*operation, error) {
	if ep == nil || ep.Spec() == nil {
		return nil, errors.New("a nil endpoint")
	}
	if err := ep.Err(); err != nil {
		return nil, err
	}
	subject := ep.Subject(base)
	if err := endpoint.ValidateSubject(subject); err != nil {
		return nil, err
	}
	if k := ep.Spec().Kind; k == endpoint.GatherKind {
		return nil, endpoint.Unimplemented.Errorf("%s: nobody serves a %v", subject, k)
	}
	ep = ep.Bind(endpoint.Identity(b.name, subject)).With(mw)
	s := ep.Spec()
	set, err := s.Codecs(b.codecs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	info, err := s.Info(subject, set.Names())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	if ep.Handler() == nil {
		return nil, fmt.Errorf("%s: a middleware returned a nil handler", subject)
	}
	op := &operation{
		bus: b, base: base, subject: subject, spec: s, handler: ep.Handler(), codecs: set,
		any: isPayload(s.NewRequest()), bare: ep.Bare(), info: info,
	}
	op.ctx, op.cancel = context.WithCancelCause(context.Background())
	op.jobs = dispatcher{limit: b.concurrency, backlog: b.backlog, wait: b.backlogWait, run: op.run, refuse: op.refuse}
	op.jobs.inline = trust{never: s.Kind != endpoint.UnaryKind, unseen: earned}
	if b.eager {
		op.jobs.inline.unseen = 0
	}
	if s.Kind != endpoint.UnaryKind {
		op.jobs.run, op.jobs.refuse = op.runStream, op.refuseStream
	}
	if s.Kind != endpoint.UnaryKind || b.maxMessage > 0 {
		op.ready = make(chan struct{})
	}
	if s.Concurrency > 0 {
		op.jobs.limit = s.Concurrency
	}
	if s.Backlog != 0 {
		op.jobs.backlog = max(s.Backlog, 0)
	}
	op.jobs.limit, op.jobs.backlog = min(op.jobs.limit, noLimit), min(op.jobs.backlog, noLimit)
	if s.BacklogWait > 0 {
		op.jobs.wait = s.BacklogWait
	}
	return op, nil
}

// noLimit is as good as none, and small enough to be added up.
const noLimit = 1 << 29

func isPayload(m any) bool {
	_, ok := m.(*codec.Payload)
	return ok
}

// receive is the subscription's callback. It stamps and admits, and never blocks.
func (op *operation) receive(msg *nats.Msg) {
	if op.bus.hostileReply(msg.Reply) {
		op.bus.malformed.Add(1)
		return
	}
	op.jobs.push(job{arrival: arrival{msg: msg}, received: time.Now()})
}

// maxReplyTo is the longest reply subject that is answered. A bus's own have some 700 bytes at most; the broker closes a
// connection for good that sends it a line over 4 KiB.
const maxReplyTo = 1024

// hostileReply tells a request that would make us publish where no caller listens: to the broker's own subjects, to those of
// discovery or of an instance, to one of our endpoints and below, or to a pattern; or that would cost us the connection.
func (b *Bus) hostileReply(reply string) bool {
	switch {
	case reply == "":
		return false
	case reply[0] == '$' || len(reply) > maxReplyTo || strings.IndexByte(reply, '*') >= 0 || strings.IndexByte(reply, '>') >= 0:
		return true
	case strings.HasPrefix(reply, "_INBOX."), strings.HasPrefix(reply, b.mux.prefix): // no endpoint lies there
		return false
	case beneath(reply, b.rpcRoot), beneath(reply, b.srvRoot):
		return true
	}
	taken := *b.taken.Load()
	for end := len(reply); end > 0; end = strings.LastIndexByte(reply[:end], '.') {
		if taken[reply[:end]] != nil {
			return true
		}
	}
	return false
}

func beneath(subject, root string) bool {
	return strings.HasPrefix(subject, root) && strings.HasPrefix(subject[len(root):], ".")
}

// garbled tells a message whose header block the client library could not read: it hands such a one over as if it had none.
func garbled(m *nats.Msg) bool {
	return m.Header == nil && m.Size() > len(m.Subject)+len(m.Reply)+len(m.Data)
}

// refuse answers a request that found no room.
func (op *operation) refuse(j job, reason string) {
	call := j.speak()
	to := op.bus.sender(j.arrival)
	to.call = call
	op.bus.replyError(to, op.refusal(reason), nil)
	op.bus.acked.leave(call)
	j.done()
}

// refusal is the error of a request that found no room.
func (op *operation) refusal(reason string) *endpoint.Error {
	op.meter.Refuse()
	e := endpoint.ResourceExhausted.New("the service is at its limit").WithRetryAfter(op.jobs.wait / 2)
	if reason == reasonDraining {
		e = endpoint.Unavailable.New("the service is shutting down")
	}
	return e.WithReason(reason).WithOutcome(endpoint.NotExecuted)
}

// tells reports whether a request asks who answers it, where nothing else of its metadata matters.
func tells(a *arrival) bool {
	var meta wire.Request
	var app endpoint.Header
	_ = a.read(&wire.Reader{}, &meta, &app) // what can't be read asks for nothing
	return meta.Tell
}

func (op *operation) newCall() *endpoint.Call {
	if op.bare {
		return endpoint.BareCall(op.spec, op.subject, endpoint.ServerSide)
	}
	return endpoint.NewCall(op.spec, op.subject, endpoint.ServerSide)
}

// run takes one request from bytes to reply. It is called by a worker.
func (op *operation) run(j job) {
	op.meter.Run(1)
	c := op.newCall()
	c.SetReceived(j.received)
	c.SetNow(j.by.started)
	c.SetInstance(op.bus.id)
	var meta wire.Request
	var failed *endpoint.Error
	var parcel *serverParcel // that the request came in
	ended := false
	defer func() {
		p := recover()
		switch {
		case p != nil: // a middleware's, or the bus's own; the function's is an error already
			failed = op.fail(c, &j, &meta, endpoint.Recovered(p))
		case !ended: // the handler ended its goroutine
			failed = op.fail(c, &j, &meta, endpoint.Internal.Wrap(errGoexit, "").WithReason(endpoint.ReasonPanic))
		}
		op.bus.acked.leave(j.by.speak())
		if parcel != nil {
			parcel.end()
		}
		if ended && p == nil && !j.by.held() && parcel == nil {
			c.Release()
		}
		c.End()
		j.done()
		op.meter.Run(-1)
		j.by.ended = time.Now()
		if failed == nil || failed.Reason() != endpoint.ReasonExpired || failed.Outcome() == endpoint.Executed { // else it is counted already
			op.meter.Done(j.by.ended.Sub(j.received), failed)
		}
	}()
	ctx, err := op.accept(c, &j, &meta)
	if err == nil && !j.by.begin(c) {
		err = errGaveUp
	}
	if err == nil && meta.Size > 0 {
		parcel, err = op.fetch(ctx, c, &j, &meta)
	}
	if err != nil {
		failed = op.fail(c, &j, &meta, err)
	} else {
		failed = op.serve(ctx, c, &j, &meta)
	}
	ended = true
}

var errGoexit = errors.New("the handler ended its goroutine")

// accept reads the request's metadata and makes its context, or says why it is not executed.
func (op *operation) accept(c *endpoint.Call, j *job, meta *wire.Request) (context.Context, error) {
	if err := readMeta(&j.arrival, &j.by.tokens, meta, &c.Header); err != nil {
		op.bus.malformed.Add(1)
		return nil, err
	}
	if meta.Stream != "" {
		return nil, endpoint.Unimplemented.Errorf("%s is unary, Rpc-Stream is %.80q", op.subject, meta.Stream)
	}
	if meta.Size > 0 {
		if err := op.announced(meta); err != nil {
			return nil, err
		}
	}
	c.Attempt = meta.Attempt
	if meta.Trace != "" {
		c.SetTrace(meta.Trace)
	}
	deadline, err := op.deadline(j, meta)
	if err != nil {
		return nil, err
	}
	if err := op.setBody(c, &j.arrival, meta); err != nil {
		return nil, err
	}
	c.SetMaxReply(op.mostReply(j, meta))
	return c.Begin(op.ctx, deadline), nil
}

// readMeta reads a request's metadata from its token and its headers.
func readMeta(a *arrival, with *wire.Reader, meta *wire.Request, app *endpoint.Header) *endpoint.Error {
	if err := a.read(with, meta, app); err != nil {
		return err
	}
	if a.frame == nil && garbled(a.msg) {
		return errGarbledRequest
	}
	return nil
}

// deadline counts from receipt, so that our own queueing is charged; the send time is the back-stop against a request that
// was delivered late.
func (op *operation) deadline(j *job, meta *wire.Request) (time.Time, error) {
	timeout := op.spec.Timeout
	if timeout == 0 && !meta.HasTimeout {
		timeout = op.bus.timeout
	}
	if meta.HasTimeout && (timeout == 0 || meta.Timeout < timeout) {
		timeout = meta.Timeout
	}
	deadline := j.received.Add(timeout)
	late := !j.by.started.Before(deadline)
	if meta.HasSent && !late {
		limit := timeout
		if meta.HasTimeout {
			limit = meta.Timeout
		}
		now, skew := j.by.started.UnixMilli(), op.bus.skew
		if op.bus.pulse.slept(meta.Sent, now) {
			skew = 0
		}
		late = now-meta.Sent > limit.Milliseconds()+skew.Milliseconds()
	}
	if late {
		op.meter.Expire()
		return deadline, endpoint.DeadlineExceeded.New("the deadline passed before the call was to run").
			WithReason(endpoint.ReasonExpired)
	}
	return deadline, nil
}

// setBody chooses the codec. A caller of ours that names no type means JSON; a foreign one means JSON where it is taken,
// else the endpoint's first codec.
func (op *operation) setBody(c *endpoint.Call, a *arrival, meta *wire.Request) error {
	mediaType := meta.MediaType
	if mediaType == "" {
		mediaType = wire.JSONType
		if _, ok := op.codecs.Lookup(mediaType); !ok && !meta.Own && !op.any {
			mediaType = op.codecs.Default().Name()
		}
	}
	with, ok := op.codecs.Lookup(mediaType)
	if !ok && !op.any {
		return endpoint.InvalidArgument.Errorf("%s does not take %.80q; it takes %s", op.subject, mediaType, strings.Join(op.codecs.Names(), ", ")).
			WithReason(endpoint.ReasonMediaType)
	}
	if !ok && !isPayload(op.spec.NewResponse()) {
		with = op.codecs.Default() // nobody can answer in a type that only a Payload can have
	}
	if a.frame != nil {
		c.SetBody(a.body(), mediaType, with)
		return nil
	}
	c.SetBodyAt(&a.msg.Data, mediaType, with)
	return nil
}

// serve runs the chain and sends its reply.
func (op *operation) serve(ctx context.Context, c *endpoint.Call, j *job, meta *wire.Request) *endpoint.Error {
	reply, err := op.handler(ctx, c)
	if err != nil {
		if endpoint.CodeOf(err) == endpoint.Canceled && context.Cause(op.ctx) == error(errShutdown) { //nolint:errorlint // this very value
			err = errShutdown.WithCause(err) // not the caller gave up, we do
		}
		return op.fail(c, j, meta, err)
	}
	body, mediaType, err := c.EncodedReply(reply)
	if err != nil {
		return op.fail(c, j, meta, err)
	}
	if j.msg.Reply == "" || j.answered() {
		return nil // published, not requested; or too late
	}
	h, err := op.replyHeaders(c, meta, mediaType)
	if err != nil {
		return op.fail(c, j, meta, err)
	}
	if op.inChunks(j, meta, h, body) {
		if err = op.ship(ctx, c, j, meta, h, body); err != nil {
			return op.fail(c, j, meta, err)
		}
		return nil
	}
	to := op.bus.recipient(j, meta)
	switch err = op.bus.reply(&to, h, body); {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload): // headers and all, or the broker's limit shrank
		op.bus.maxPayload.Store(op.bus.nc.MaxPayload())
		return op.fail(c, j, meta, tooLarge(len(body), h, op.bus.nc.MaxPayload()))
	default:
		op.bus.report(slog.LevelError, "reply not sent", slog.String("subject", op.subject), slog.Any("error", err))
		return endpoint.Unavailable.Wrap(err, "the reply could not be sent").WithOutcome(endpoint.Executed)
	}
}

// tooLarge is what a caller is told instead of a reply that the broker does not take.
func tooLarge(body int, h wire.Headers, most int64) *endpoint.Error {
	return endpoint.ResourceExhausted.Errorf("the reply has %d bytes with its headers, the broker takes %d", body+wire.Size(h), most).
		WithReason(endpoint.ReasonReplyTooLarge)
}

// takesFrames reports whether batch frames are taken.
func (op *operation) takesFrames() bool {
	return op.spec.Kind == endpoint.UnaryKind && !op.bus.frameless
}

func (op *operation) stats() endpoint.Stats {
	s := op.meter.Stats()
	s.Service, s.Name, s.Subject = op.spec.Service, op.spec.Name, op.subject
	s.Waiting = int64(op.jobs.waiting())
	s.Dropped = op.member.Load().dropped()
	return s
}
