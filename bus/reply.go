package bus

import (
	"context"
	"errors"
	"log/slog"
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
	if mediaType != asked || meta.Tell || c.Reply.Len() > 0 {
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
	return h, nil
}

// reply publishes a reply. While the connection has no room it waits, and the handler's place is taken for so long: that
// is how callers of a service behind a slow network are held back.
func (b *Bus) reply(ctx context.Context, to string, h wire.Headers, body []byte) error {
	size := len(body) + wire.Size(h)
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(b.timeout)
	}
	place, err := b.up.admit(size, deadline, nil)
	if err != nil {
		return err
	}
	defer place.release(size)
	if h == nil {
		return b.nc.Publish(to, body)
	}
	return b.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(h), Data: body})
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
	var app *endpoint.Header
	if c.Reply.Validate() == nil {
		app = &c.Reply
	}
	j.by.speak()
	if !j.answered() {
		op.bus.replyError(j.msg.Reply, e, app, meta.Tell)
	}
	return e
}

// replyError sends an error reply, with application headers if there are any, and with our name if it is asked for.
func (b *Bus) replyError(to string, e *endpoint.Error, app *endpoint.Header, tell bool) {
	if to == "" {
		return
	}
	send := func(e *endpoint.Error, app *endpoint.Header) error {
		h := wire.Headers{}
		if app != nil {
			wire.WriteApp(h, app)
		}
		if tell {
			h[wire.Instance] = []string{b.id}
		}
		body, err := wire.WriteError(h, e)
		if err != nil {
			return err
		}
		return b.nc.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header(h), Data: body})
	}
	err := send(e, app)
	if errors.Is(err, nats.ErrMaxPayload) { // too much of details: the verdict alone always fits
		small := endpoint.Error{Code: e.Code, Message: "the error was too large to be sent whole", RetryAfter: e.RetryAfter}
		err = send(small.WithOutcome(e.Outcome()).WithReason(e.Reason()), nil)
	}
	if err != nil {
		b.report(slog.LevelError, "error reply not sent", slog.String("code", e.Code.String()), slog.Any("error", err))
	}
}

// abandon answers for the handlers that would not end: after this nobody publishes their replies.
func (op *operation) abandon() {
	op.jobs.abandon(func(m *nats.Msg) {
		op.bus.replyError(m.Reply, errShutdown.WithOutcome(endpoint.Executed), nil, tells(m))
	})
}
