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
func (x *exchange) unary(t *target) error {
	if err := x.origin.Check(x.r); err != nil {
		return endpoint.PermissionDenied.Wrap(err, "a request of another origin").WithOutcome(endpoint.NotSent)
	}
	mediaType, err := requestType(x.r.Header["Content-Type"])
	if err != nil {
		return err
	}
	if err := x.checkHeaders(); err != nil {
		return err
	}
	if v := x.r.Header.Get("Connect-Protocol-Version"); v != "" && v != "1" {
		return endpoint.InvalidArgument.Errorf("Connect-Protocol-Version is %.20q, must be 1", v).WithOutcome(endpoint.NotSent)
	}
	asked, err := askedTimeout(x.r.Header["Connect-Timeout-Ms"])
	if err != nil {
		return err
	}
	life := x.lives.join(x.client, func() { x.readUntil(past()) })
	defer x.lives.leave(life)
	bounded, release := x.bound(life, asked)
	defer release()
	ctx, err := x.authenticate(bounded)
	if err != nil {
		return err
	}
	if ctx, err = x.inbound(ctx); err != nil {
		return err
	}
	body, err := x.read(bounded, life)
	if err != nil {
		return err
	}
	deadline := x.deadline(asked)
	if asked != nil || deadline.Add(patience).After(x.start.Add(x.timeouts.Body)) {
		x.readUntil(time.Time{}) // net/http waits for the next request already, and its time must not be up before the call's
	}
	reply, err := x.call(ctx, bounded, t, deadline, &codec.Payload{MediaType: mediaType, Data: body})
	if err != nil {
		return err
	}
	x.write(x.replyType(reply.MediaType, mediaType), reply.Data)
	return nil
}

// bound ends a context at the time that the client asked for. It and what it bounds are the context of everything from
// authentication on: it ends with the client, too, and when a drain gives up waiting.
func (x *exchange) bound(life context.Context, asked *time.Duration) (context.Context, context.CancelFunc) {
	if asked == nil {
		return life, func() {}
	}
	return endpoint.WithDeadline(life, x.deadline(asked), nil)
}

// call calls the endpoint. Headers of the reply are set afterwards, whether it failed or not.
func (x *exchange) call(ctx, bounded context.Context, t *target, deadline time.Time, p *codec.Payload) (*codec.Payload, error) {
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
	e, ours := errors.AsType[*endpoint.Error](err)
	ours = ours && e != nil
	switch {
	case err == nil:
		x.exposed.keep(t)
		return reply, nil
	case ours && e.Remote():
		x.exposed.keep(t)
	case ours && e.Reason() == endpoint.ReasonNoResponders:
		return nil, x.absent(ctx, t, err)
	}
	return nil, err
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
	if t.exact || x.exposed.known(t.subject) || x.directory.knows(ctx, t.subject) {
		return err
	}
	return notFound()
}

// authenticate asks WithAuth's function for the call's context, which is ctx without one.
func (x *exchange) authenticate(bounded context.Context) (context.Context, error) {
	if x.auth == nil {
		return bounded, nil
	}
	ctx, err := x.auth(x.r.WithContext(bounded))
	switch {
	case err == nil && ctx == nil:
		return bounded, nil
	case err == nil:
		return ctx, nil
	case endpoint.CodeOf(err) == endpoint.Unknown:
		return nil, endpoint.Unauthenticated.Wrap(err, "")
	}
	return nil, err
}

// deadline is when the call must be over: what the client asked for counts from its request's arrival, up to the
// maximum; our own default counts from now, since it is not meant for slow uploads.
func (x *exchange) deadline(asked *time.Duration) time.Time {
	if asked == nil {
		return time.Now().Add(x.timeouts.Call)
	}
	return x.start.Add(min(*asked, x.timeouts.MaxCall))
}

// askedTimeout reads Connect-Timeout-Ms: at most ten digits; nil if there is none.
func askedTimeout(values []string) (*time.Duration, error) {
	if len(values) == 0 {
		return nil, nil
	}
	ms, ok := int64(0), len(values) == 1 && values[0] != "" && len(values[0]) <= 10
	for i := 0; ok && i < len(values[0]); i++ {
		c := values[0][i]
		ok = '0' <= c && c <= '9'
		ms = ms*10 + int64(c-'0')
	}
	if !ok {
		return nil, endpoint.InvalidArgument.Errorf("Connect-Timeout-Ms %.40q is not a number of at most ten digits",
			strings.Join(values, ", ")).WithOutcome(endpoint.NotSent)
	}
	d := time.Duration(ms) * time.Millisecond
	return &d, nil
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
		mediaType == "application/x-www-form-urlencoded", strings.HasPrefix(mediaType, "application/grpc"),
		strings.HasPrefix(mediaType, "application/connect+"):
		return "", unsupported(fmt.Sprintf("the content type %.80q is not taken, but application/json is", mediaType))
	case mediaType == jsonType && given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8"):
		return "", unsupported(fmt.Sprintf("JSON is UTF-8 (RFC 8259), not %.40q", charset))
	}
	return mediaType, nil
}
