package httpbridge

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"postbus.example/endpoint"
)

// WithAuthorization asks f before each call whether who sent the request may call the subject. It runs after [WithAuth], with
// the context that returned, once for each call of a request: a batch may bring many. It must not wait.
//
// An error ends that call with the status of its code; one without a code is 403 without text. By default whoever is
// authenticated may call all that is exposed.
func WithAuthorization(f func(ctx context.Context, subject string) error) Option {
	return func(s *settings) {
		switch {
		case f == nil:
			s.fault("WithAuthorization", errors.New("the function is nil"))
		case s.may != nil:
			s.fault("WithAuthorization", errors.New("given twice; which one counts would be a guess"))
		}
		s.may = f
	}
}

// Challenge returns err with what its answer says in WWW-Authenticate (RFC 9110, 11.6.1), such as `Bearer realm="acme"`;
// several are several lines. It is for errors of [WithAuth] and [WithAuthorization], and for [WriteError]; answers other than
// 401 and 403 leave it out, and so do challenges with a control character. Of a nil err it makes nil.
func Challenge(err error, challenges ...string) error {
	if err == nil {
		return nil
	}
	return &challenge{err, slices.Clone(challenges)}
}

type challenge struct {
	err   error
	lines []string
}

func (c *challenge) Error() string { return c.err.Error() }
func (c *challenge) Unwrap() error { return c.err }

// challenged sets WWW-Authenticate.
func challenged(h http.Header, err error) {
	c, ok := errors.AsType[*challenge](err)
	if !ok {
		return
	}
	for _, line := range c.lines {
		if legible(line) {
			h.Add("WWW-Authenticate", line)
		}
	}
}

// authorize asks whether who was authenticated may call t, and returns the context of that call.
func (x *exchange) authorize(ctx context.Context, t *target) (context.Context, error) {
	if x.may == nil {
		return x.identified(ctx, t)
	}
	err := x.may(ctx, t.subject)
	switch {
	case err == nil:
		return x.identified(ctx, t)
	case endpoint.CodeOf(err) == endpoint.Unknown:
		return nil, endpoint.PermissionDenied.Wrap(err, "")
	}
	return nil, err
}
