package httpbridge

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"strings"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// unary carries one message there and one back: JSON over POST, which is Connect's unary protocol, and binary over POST.
// The order of its checks is drawn in the package's documentation.
func (x *exchange) unary(t *target, mediaType string) error {
	v, err := x.admit(t)
	if err != nil {
		return err
	}
	defer v.end()
	body, err := x.read(v.bounded, v.life)
	if err != nil {
		return err
	}
	deadline := x.answerBy(&v)
	message := &codec.Payload{MediaType: mediaType, Data: body}
	reply, err := x.call(v.ctx, v.bounded, t, deadline, message)
	if err != nil {
		if p := x.misjudged(v.ctx, t, err); p != nil {
			return x.instead(t, p, v, message)
		}
		return err
	}
	x.write(x.replyType(reply.MediaType, mediaType), reply.Data)
	return nil
}

// answerBy is when a call whose request is here must be over. It keeps the connection open if that may take longer than bodies may:
// net/http waits for the next request already, and its time must not be up before the call's.
func (x *exchange) answerBy(v *visit) time.Time {
	deadline := x.deadline(v.asked)
	if v.asked != nil || deadline.Add(patience).After(x.start.Add(x.timeouts.Body)) {
		x.readUntil(time.Time{})
	}
	return deadline
}

// misjudged returns what is published of an endpoint that turns out not to be unary, when nothing was known of it before.
func (x *exchange) misjudged(ctx context.Context, t *target, err error) *published {
	if endpoint.CodeOf(err) != endpoint.Unimplemented || endpoint.OutcomeOf(err) != endpoint.NotExecuted {
		return nil
	}
	if p, _ := x.directory.find(ctx, t.subject); p != nil && p.Kind != endpoint.UnaryKind {
		return p
	}
	return nil
}

// instead calls an endpoint that was called for one reply in vain.
func (x *exchange) instead(t *target, p *published, v visit, message *codec.Payload) error {
	f, err := x.plainFormat(p, message.MediaType)
	if err != nil {
		return err
	}
	x.endless = true
	return x.emit(&stream{x: x, target: t, kind: p.Kind, visit: &v, media: message.MediaType, single: message}, f)
}

// call calls the endpoint. Headers of the reply are set afterwards, whether it failed or not.
func (x *exchange) call(ctx, bounded context.Context, t *target, deadline time.Time, p *codec.Payload) (*codec.Payload, error) {
	if err := textual(p); err != nil {
		return nil, err
	}
	if x.auth != nil { // which may have returned a context that doesn't derive from the request's
		joined, leave := join(ctx, bounded)
		defer leave()
		ctx = joined
	}
	ctx, cancel := endpoint.WithDeadline(ctx, deadline, nil)
	defer cancel()
	var report *endpoint.Report
	if x.tells { // a service that is watched has more to tell, so nobody is who need not be
		ctx, report = endpoint.Observe(ctx)
	}
	reply, err := t.caller()(ctx, p)
	if report != nil {
		x.outbound(report)
	}
	if err != nil {
		return nil, x.judge(ctx, t, err)
	}
	x.exposed.keep(t)
	return reply, nil
}

// judge returns what the client is told of a call that failed, and remembers who answered.
func (x *exchange) judge(ctx context.Context, t *target, err error) error {
	e, ours := errors.AsType[*endpoint.Error](err)
	ours = ours && e != nil
	switch {
	case ours && e.Remote():
		x.exposed.keep(t)
	case ours && e.Reason() == endpoint.ReasonNoResponders:
		return x.absent(ctx, t, err)
	}
	return err
}

// join ends ctx when other is canceled. Other's deadline is left to ctx, which has the same: else two timers would race for
// what the call's end is called.
func join(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, abort := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() {
		if errors.Is(other.Err(), context.Canceled) {
			abort(context.Cause(other))
		}
	})
	return ctx, func() { stop(); abort(nil) }
}

// absent tells what was never there (404) from what is away (503). The broker can't, so what was named counts as there,
// and of what lies under a pattern, what was seen.
func (x *exchange) absent(ctx context.Context, t *target, err error) error {
	if t.exact || x.exposed.known(t.subject) {
		return err
	}
	if p, _ := x.directory.find(ctx, t.subject); p != nil { // what can't be found out counts as never there
		return err
	}
	return notFound()
}

// requestType reads Content-Type. What a browser sends without asking first (https://fetch.spec.whatwg.org: no type at all,
// forms, plain text) is refused, so that no page can call us behind its user's back; so are protocols of their own that are
// not unary.
func requestType(values []string) (string, error) {
	if len(values) != 1 {
		return "", unsupported("the request needs one Content-Type, such as application/json")
	}
	if values[0] == jsonType {
		return jsonType, nil
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return "", unsupported("the Content-Type can't be read")
	}
	charset, given := params["charset"]
	switch {
	case !strings.Contains(mediaType, "/"), strings.HasPrefix(mediaType, "text/"), strings.HasPrefix(mediaType, "multipart/"),
		mediaType == "application/x-www-form-urlencoded", strings.HasPrefix(mediaType, "application/grpc"):
		return "", unsupported(fmt.Sprintf("the content type %.80q is not taken, but application/json is", mediaType))
	case mediaType == jsonType && given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8"):
		return "", unsupported(fmt.Sprintf("JSON is UTF-8 (RFC 8259), not %.40q", charset))
	}
	return mediaType, nil
}
