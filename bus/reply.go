package bus

import (
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/wire"
)

// replyHeaders makes the headers of a success, nil when there is nothing to say.
func (op *operation) replyHeaders(c *endpoint.Call, meta *wire.Request, mediaType string) (wire.Headers, error) {
	asked := meta.MediaType
	if asked == "" {
		asked = wire.JSONType
		if !meta.Own && op.codecs.Len() > 0 && mediaType == op.codecs.Default().Name() {
			asked = mediaType // a foreign caller that named no type gets the endpoint's own without a header
		}
	}
	var h wire.Headers
	if mediaType == "" {
		mediaType = asked // a Payload that says nothing
	}
	if mediaType != asked || meta.Tell || c.Reply.Len() > 0 || c.Trailer.Len() > 0 {
		h = wire.Headers{}
	}
	if mediaType != asked {
		h[wire.ContentType] = []string{mediaType}
	}
	if meta.Tell {
		h[wire.Instance] = []string{op.bus.id}
	}
	if c.Reply.Len() > 0 {
		if err := c.Reply.Fault(endpoint.Internal); err != nil {
			return nil, err
		}
		wire.WriteApp(h, &c.Reply)
	}
	if c.Trailer.Len() > 0 {
		if err := c.Trailer.Fault(endpoint.Internal); err != nil {
			return nil, err
		}
		wire.WriteTrailer(h, &c.Trailer)
	}
	return h, nil
}

// recipient is who waits for a reply.
type recipient struct {
	subject string
	frame   *inbound      // that the request came in; nil if it came alone
	entry   []byte        // its id there
	tell    bool          // our name is asked for
	call    uint64        // in the ledger, 0 if it was not acked
	since   time.Time     // when the request was there
	waits   time.Duration // how long from then somebody waits
}

// until is when nobody waits any more.
func (to *recipient) until() time.Time { return to.since.Add(to.waits) }

// recipient returns who waits for the reply to a job. From now on it is not acked any more.
func (b *Bus) recipient(j *job, meta *wire.Request) (to recipient) {
	j.address(&to)
	to.tell, to.call, to.since, to.waits = meta.Tell, j.by.speak(), j.received, b.timeout
	if meta.HasTimeout {
		to.waits = meta.Timeout
	}
	return to
}

// sender is who waits for the answer to a message that was not taken as a job.
func (b *Bus) sender(a arrival) recipient {
	to := a.sender()
	to.tell, to.since, to.waits = tells(&a), time.Now(), b.timeout
	return to
}

// named adds to the headers of a message which of the calls in a frame it is for.
func (to *recipient) named(h wire.Headers) wire.Headers {
	if len(to.entry) == 0 {
		return h
	}
	if h == nil {
		h = wire.Headers{}
	}
	h[wire.EntryHeader] = []string{string(to.entry)}
	return h
}

// reply publishes a reply. While the connection has no room it waits, and the handler's place is taken for so long: that
// is how callers of a service behind a slow network are held back. While there is no connection the reply is kept.
func (b *Bus) reply(to *recipient, h wire.Headers, body []byte) error {
	if to.frame != nil && h == nil && to.call == 0 && len(body) <= wire.MaxEntryBody &&
		int64(wire.EntrySize(len(to.entry), len(body))) <= b.maxPayload.Load() {
		to.frame.answer(to, body)
		return nil
	}
	h = to.named(h)
	if h == nil && to.call == 0 && b.lay(to.subject, body) { // else its ack is before it, on the usual way
		return nil
	}
	size := len(body) + wire.Size(h)
	place, _, err := b.up.Admit(size, to.until(), nil)
	if err != nil {
		return b.keep(err, *to, h, body)
	}
	defer place.Release(size)
	return b.keep(b.publish(to.subject, h, body), *to, h, body)
}

// lay publishes a reply together with others that who reads has, past nats.go; false if it is none of these, or can't be.
func (b *Bus) lay(subject string, body []byte) bool {
	o := b.up.Latest()
	if o == nil || !o.Lays() || len(body) >= straight || !b.puts(o, len(body)) {
		return false
	}
	var room [128]byte
	head := append(append(append(room[:0], "PUB "...), subject...), ' ')
	head = append(strconv.AppendInt(head, int64(len(body)), 10), "\r\n"...)
	size := len(head) + len(body) + len("\r\n")
	if !o.Reserve(size) {
		return false
	}
	if o.Lay(head, body) != nil {
		o.Release(size)
		return false
	}
	return true
}

func (b *Bus) publish(subject string, h wire.Headers, body []byte) error {
	if h == nil {
		return b.nc.Publish(subject, body)
	}
	return b.nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header(h), Data: body})
}

// fail logs what the caller can't be told and sends what it can.
func (op *operation) fail(c *endpoint.Call, j *job, meta *wire.Request, err error) *endpoint.Error {
	e := c.Verdict(err)
	if e.Reason() == endpoint.ReasonReplyTooLarge {
		op.bus.maxPayload.Store(op.bus.nc.MaxPayload()) // it may have grown since
	}
	if e.Code == endpoint.Internal || e.Code == endpoint.Unknown {
		cause := err
		if known, ok := errors.AsType[*endpoint.Error](err); ok && known.Unwrap() != nil {
			cause = known.Unwrap() // it says more than what the caller is told
		}
		op.bus.report(slog.LevelError, "call failed", slog.String("subject", op.subject), slog.String("code", e.Code.String()),
			slog.String("reason", e.Reason()), slog.Any("cause", cause))
	}
	app := wire.Headers{}
	if c.Reply.Validate() == nil {
		wire.WriteApp(app, &c.Reply)
	}
	if c.Trailer.Validate() == nil {
		wire.WriteTrailer(app, &c.Trailer)
	}
	to := op.bus.recipient(j, meta)
	if !j.answered() {
		op.bus.replyError(to, e, app)
	}
	return e
}

// replyError sends an error reply, beside the application's headers if there are any. It does not wait for room: errors are small.
func (b *Bus) replyError(to recipient, e *endpoint.Error, app wire.Headers) {
	if to.subject == "" {
		return
	}
	send := func(e *endpoint.Error, h wire.Headers) error {
		h = to.named(h)
		if to.tell {
			h[wire.Instance] = []string{b.id}
		}
		body, err := wire.WriteError(h, e)
		if err != nil {
			return err
		}
		if err = b.unreachable(); err == nil {
			err = b.publish(to.subject, h, body)
		}
		return b.keep(err, to, h, body)
	}
	if app == nil {
		app = wire.Headers{}
	}
	err := send(e, app)
	if errors.Is(err, nats.ErrMaxPayload) { // too much of details: the verdict alone always fits
		small := endpoint.Error{Code: e.Code, Message: "the error was too large to be sent whole", RetryAfter: e.RetryAfter}
		err = send(small.WithOutcome(e.Outcome()).WithReason(e.Reason()), wire.Headers{})
	}
	if err != nil {
		b.report(slog.LevelError, "error reply not sent", slog.String("code", e.Code.String()), slog.Any("error", err))
	}
}

// abandon answers for the handlers that would not end: after this nobody publishes their replies.
func (op *operation) abandon() {
	op.jobs.abandon(func(a arrival) {
		op.bus.replyError(op.bus.sender(a), errShutdown.WithOutcome(endpoint.Executed), nil)
	})
}
