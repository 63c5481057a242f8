package httpbridge

import (
	"context"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// visit is a request that was let in: what its call needs from the request's headers. It must end.
type visit struct {
	ctx     context.Context // of the call: what WithAuth returned, with the metadata that passes
	bounded context.Context // ends with the client, with the time it asked for, and when a drain gives up waiting
	life    *life
	asked   *time.Duration // Connect-Timeout-Ms, nil if there is none
	release context.CancelFunc
	lives   *lives
}

// sameOrigin refuses what a page of another origin sends without being let in by WithCORS.
func (x *exchange) sameOrigin() error {
	if err := x.origin.Check(x.r); err != nil {
		return endpoint.PermissionDenied.Wrap(err, "a request of another origin").WithOutcome(endpoint.NotSent)
	}
	return nil
}

// admit does what every protocol does before the body is read, in the order that is drawn in the package's documentation. Without
// a target, because the body tells which endpoints are called, each call of them is for authorize.
func (x *exchange) admit(t *target) (v visit, err error) {
	if err := x.checkHeaders(); err != nil {
		return v, err
	}
	if v := x.r.Header["Connect-Protocol-Version"]; len(v) > 0 && (len(v) > 1 || v[0] != "1") {
		return visit{}, endpoint.InvalidArgument.Errorf("Connect-Protocol-Version is %.20q, must be 1", strings.Join(v, ", ")).
			WithOutcome(endpoint.NotSent)
	}
	if v.asked, err = x.askedTimeout(); err != nil {
		return v, err
	}
	v.lives = &x.lives
	v.life = v.lives.join(x.client, func() { x.readUntil(past()) })
	v.bounded, v.release = x.bound(v.life, v.asked)
	v.ctx, err = x.authenticate(v.bounded)
	if err == nil && t != nil {
		v.ctx, err = x.authorize(v.ctx, t)
	}
	if err == nil {
		v.ctx, err = x.inbound(v.ctx)
	}
	if err != nil {
		v.end()
	}
	return v, err
}

// end ends the contexts.
func (v *visit) end() {
	v.release()
	v.lives.leave(v.life)
}

// bound ends a context at the time that the client asked for. It and what it bounds are the context of everything from
// authentication on: it ends with the client, too, and when a drain gives up waiting.
func (x *exchange) bound(life context.Context, asked *time.Duration) (context.Context, context.CancelFunc) {
	if asked == nil {
		return life, func() {}
	}
	return endpoint.WithDeadline(life, x.deadline(asked), nil)
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
// maximum unless it is a stream, of which none may be longer than one without a deadline; our own default counts from now,
// since it is not meant for slow uploads.
func (x *exchange) deadline(asked *time.Duration) time.Time {
	if asked == nil {
		return time.Now().Add(x.timeouts.Call)
	}
	if x.endless {
		return x.start.Add(*asked)
	}
	return x.start.Add(min(*asked, x.timeouts.MaxCall))
}

// askedTimeout is how long the client is willing to wait, nil if it doesn't say.
func (x *exchange) askedTimeout() (*time.Duration, error) {
	if x.protocol == nil {
		return connectTimeout(x.r.Header["Connect-Timeout-Ms"])
	}
	d, ok, err := x.protocol.Timeout(x.r.Header)
	if !ok || err != nil {
		return nil, err
	}
	return &d, nil
}

// connectTimeout reads Connect-Timeout-Ms: at most ten digits; nil if there is none.
func connectTimeout(values []string) (*time.Duration, error) {
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
