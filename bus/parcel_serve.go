package bus

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// serverParcel is the service's end.
type serverParcel struct {
	parcel
	op    *operation
	c     *endpoint.Call
	id    uint64
	holds int64  // of the depot
	self  string // the control subject
	epoch uint64 // of the connection that it began on
}

// newParcel makes one and names it; nil where this instance has no control subjects.
func (op *operation) newParcel(ctx context.Context, c *endpoint.Call) *serverParcel {
	select {
	case <-op.ready: // also where the context is over as well
	default:
		select {
		case <-op.ready:
		case <-ctx.Done():
			return nil
		}
	}
	if op.control == "" {
		return nil
	}
	x := &serverParcel{op: op, c: c, epoch: op.bus.up.Epoch()}
	x.prepare(op.bus, endpoint.InvalidArgument)
	op.bus.streams.enter(x)
	return x
}

// announced says what is wrong with a request that is announced, before anything of it comes.
func (op *operation) announced(meta *wire.Request) *endpoint.Error {
	switch {
	case meta.Size > uint64(op.bus.maxMessage):
		return endpoint.ResourceExhausted.Errorf("the request has %d bytes, at most %d are taken", meta.Size, op.bus.mostMessage()).
			WithReason(endpoint.ReasonRequestTooLarge)
	case meta.Encoding != "" && meta.Encoding != wire.S2:
		return endpoint.InvalidArgument.Errorf("content encoding %.80q is not taken, %s is", meta.Encoding, wire.S2).WithReason(endpoint.ReasonMediaType)
	}
	return nil
}

// mostMessage is how long a message may be.
func (b *Bus) mostMessage() int64 { return max(int64(b.maxMessage), b.maxPayload.Load()) }

// fetch has an announced request come, and gives it to the call. What it returns holds room in the depot, and may be asked for,
// until the call's end; nil where there is nothing of that.
func (op *operation) fetch(ctx context.Context, c *endpoint.Call, j *job, meta *wire.Request) (*serverParcel, error) {
	if j.msg.Reply == "" || strings.HasPrefix(j.msg.Reply, wire.ImportRoot+".") {
		return nil, endpoint.ResourceExhausted.New("a request in chunks needs a reply subject that is not an import's").WithReason(endpoint.ReasonRequestTooLarge)
	}
	if err := op.room(ctx, j.received, int64(meta.Size)); err != nil {
		return nil, err
	}
	x := op.newParcel(ctx, c)
	if x == nil {
		op.bus.depot.give(int64(meta.Size))
		return nil, errNoRoot
	}
	x.holds = int64(meta.Size)
	x.expect(meta.Size, meta.Encoding)
	err := x.publish(ctx, j.msg.Reply, x.self, wire.WriteOpen(op.bus.id), nil)
	x.mu.Lock()
	x.to = j.msg.Reply
	x.mu.Unlock()
	var body []byte
	if err == nil {
		body, err = x.collect(ctx, "")
	}
	if ctx.Err() != nil {
		return x, op.fetchEnded(ctx)
	}
	if err != nil {
		return x, severed(err)
	}
	j.msg.Data = body
	return x, op.setBody(c, &j.arrival, meta)
}

// room waits for some in the depot, as long as a call that is here since then may wait in the backlog.
func (op *operation) room(ctx context.Context, since time.Time, size int64) error {
	return op.bus.depot.take(size, ctx.Done(), func() error {
		switch {
		case ctx.Err() != nil:
			return op.fetchEnded(ctx)
		case time.Since(since) >= op.jobs.wait:
			op.meter.Refuse()
			return errFull.WithRetryAfter(op.jobs.wait / 2)
		}
		return nil
	})
}

// severed is what a caller is told of a connection that this end lost, or could not write to.
func severed(err error) error {
	if errors.Is(err, endpoint.Unavailable) && !errors.Is(err, errStill) && !errors.Is(err, errSlow) {
		return errSevered.WithCause(err)
	}
	return err
}

// end is for a call that has come to its end.
func (x *serverParcel) end() {
	x.bus.streams.leave(x.id)
	x.bus.depot.give(x.holds)
}

// fail implements party. What breaks a message off is not the handler's business, unless its caller left.
func (x *serverParcel) fail(err error) {
	x.parcel.fail(err)
	if err == error(errGaveUp) { //nolint:errorlint // this very value
		x.c.Cancel(err)
	}
}

var errNoRoot = endpoint.Unimplemented.New("the broker denies this instance the subjects that messages in chunks need").WithReason(endpoint.ReasonUnsupported)

// fetchEnded is why a request is not here that did not come in time.
func (op *operation) fetchEnded(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		op.meter.Expire()
		return endpoint.DeadlineExceeded.New("the deadline passed before all of the request was here").WithReason(endpoint.ReasonExpired)
	}
	return op.over(ctx)
}

// over is why the context of a call has ended.
func (op *operation) over(ctx context.Context) error {
	if context.Cause(op.ctx) == error(errShutdown) { //nolint:errorlint // this very value
		return errShutdown
	}
	return endpoint.ContextError(ctx)
}

// mostReply is how long a reply to a request may be.
func (op *operation) mostReply(j *job, meta *wire.Request) int {
	most := op.bus.maxPayload.Load()
	if op.bus.maxMessage > 0 && !strings.HasPrefix(j.msg.Reply, wire.ImportRoot+".") {
		most = max(most, min(int64(op.bus.maxMessage), int64(meta.MaxReply)))
	}
	return int(most)
}

// inChunks reports whether a reply goes so.
func (op *operation) inChunks(j *job, meta *wire.Request, h wire.Headers, body []byte) bool {
	size := len(body) + wire.Size(h) + replyMargin
	return int64(size) > op.bus.maxPayload.Load() && len(body) > 0 && op.mostReply(j, meta) > int(op.bus.maxPayload.Load())
}

// replyMargin is what the broker counts of headers beside names and values, and what a reply to a call in a frame says of it.
const replyMargin = 64

// ship sends a reply in chunks.
func (op *operation) ship(ctx context.Context, c *endpoint.Call, j *job, meta *wire.Request, h wire.Headers, body []byte) error {
	to := op.bus.recipient(j, meta)
	x := op.newParcel(ctx, c)
	if x == nil {
		return tooLarge(len(body), h, op.bus.nc.MaxPayload())
	}
	defer op.bus.streams.leave(x.id)
	if h == nil {
		h = wire.Headers{}
	}
	coded := op.bus.compresses && meta.TakesS2
	encoding := ""
	if coded {
		encoding = wire.S2
	}
	wire.WriteAnnouncement(h, op.bus.id, uint64(len(body)), encoding)
	named := nats.Header(to.named(h))
	if err := x.publish(ctx, to.subject, x.self, wire.Headers(named), nil); err != nil {
		return severed(err)
	}
	x.again = func() { // the caller may have been without a connection
		if x.bus.connected() {
			_ = x.bus.nc.PublishMsg(&nats.Msg{Subject: to.subject, Reply: x.self, Header: named})
		}
	}
	if err := x.send(ctx, body, coded, func() {}); err != nil && ctx.Err() == nil {
		return severed(err)
	} else if err != nil {
		return op.over(ctx)
	}
	return nil
}

// deliver implements party.
func (x *serverParcel) deliver(m *nats.Msg) bool {
	if garbled(m) {
		x.fail(x.fault(errUnreadable))
		return true
	}
	var none endpoint.Header
	f := wire.ReadFrame(wire.Headers(m.Header), m.Data, &none, &none)
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.Err != nil && nobodyThere(f.Err) { // the broker's: the caller is away, and may come back
		return true
	}
	x.heard = time.Now()
	switch f.Kind {
	case wire.PingFrame, wire.CancelFrame:
		return false
	case wire.IgnoredFrame:
	case wire.ItemFrame:
		x.chunk(f.Seq, m)
	case wire.WindowFrame:
		if m.Reply != "" {
			if x.bus.hostileReply(m.Reply) {
				x.breaks(x.fault(errNoControl))
				return true
			}
			x.to = m.Reply
		}
		x.granted(f.Grant)
	default:
		x.breaks(x.fault(errOdd))
	}
	return true
}

// named implements party.
func (x *serverParcel) named() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard = time.Now()
}

// entered implements party.
func (x *serverParcel) entered(id uint64) {
	x.id, x.self = id, x.op.control+string(wire.AppendCall(nil, id))
}

// since implements party.
func (x *serverParcel) since() uint64 { return x.epoch }
