package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

type userKey struct{}

// byToken knows those who say token.
func byToken(ctx context.Context, c *endpoint.Call) (context.Context, error) {
	if user := c.Header.Get("Authorization"); user != "" {
		return context.WithValue(ctx, userKey{}, user), nil
	}
	return nil, errors.New("secret: no token")
}

func whoami(ctx context.Context, _ *addRequest) (*addResponse, error) {
	return &addResponse{Sum: len(ctx.Value(userKey{}).(string))}, nil
}

func TestAuthenticate(t *testing.T) {
	m := endpoint.NewMux()
	m.Use(middleware.Authenticate(byToken)) // callers pass through
	serve(t, m, "svc.who", endpoint.New(whoami))
	call := endpoint.Caller[*addRequest, *addResponse](m, "svc.who")
	resp, err := call(endpoint.WithHeader(t.Context(), "authorization", "alice"), &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 5)

	_, err = call(t.Context(), &addRequest{})
	assert.Equal(t, err.Error(), "unauthenticated")
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
}

func TestAuthenticateRefusals(t *testing.T) {
	denied := endpoint.PermissionDenied.New("not today").WithRetryAfter(time.Hour).With(map[string]int{"a": 1}).WithOutcome(endpoint.Executed)
	var nilError *endpoint.Error
	theirs := func(code endpoint.Code) error {
		_, err := caller(fail(code.New("their words").AsRemote()))(t.Context(), &addRequest{})
		return err
	}
	var ctx0 context.Context
	for name, tc := range map[string]struct {
		ctx  context.Context
		err  error
		code endpoint.Code
		text string // what crosses
		log  string
	}{
		"an error of another type": {err: errors.New("secret"), code: endpoint.Unauthenticated, log: "secret"},
		"ours":                     {err: denied, code: endpoint.PermissionDenied, text: "not today"},
		"ours, wrapped":            {err: fmt.Errorf("secret: %w", denied), code: endpoint.PermissionDenied, text: "not today", log: "secret"},
		"a code":                   {err: endpoint.PermissionDenied, code: endpoint.PermissionDenied},
		"the code of no error":     {err: endpoint.OK, code: endpoint.Unauthenticated},
		"a nil error of our type":  {err: nilError, code: endpoint.Unauthenticated},
		"a context's":              {err: fmt.Errorf("fetch: %w", context.DeadlineExceeded), code: endpoint.DeadlineExceeded, log: "fetch"},
		"another service's":        {err: theirs(endpoint.Unavailable), code: endpoint.Internal},
		"both":                     {ctx: t.Context(), err: errors.New("secret"), code: endpoint.Unauthenticated, log: "secret"},
		"neither":                  {ctx: ctx0, code: endpoint.Internal, log: "middleware.Authenticate: the function returned a nil context"},
		"a foreign context":        {ctx: context.Background(), code: endpoint.Internal, log: "not derived"},
	} {
		t.Run(name, func(t *testing.T) {
			mw := middleware.Authenticate(func(context.Context, *endpoint.Call) (context.Context, error) { return tc.ctx, tc.err })
			c := newCall(endpoint.ServerSide)
			c.SetBody([]byte("not json"), "application/json", codec.JSON)
			_, err := mw(func(context.Context, *endpoint.Call) (any, error) {
				t.Fatal("it got through")
				return nil, nil
			})(c.Begin(t.Context(), time.Time{}), c)
			told := c.Verdict(err)
			assert.Equal(t, told.Code, tc.code)
			assert.Equal(t, told.Message, tc.text)
			assert.Equal(t, told.Outcome(), endpoint.NotExecuted)
			assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted, "for those inside of the transport, too")
			if tc.text != "" {
				assert.Equal(t, told.RetryAfter, time.Hour)
				assert.Equal(t, len(told.Details), 1)
			}
			if tc.log != "" {
				e, _ := errors.AsType[*endpoint.Error](err)
				assert.Contains(t, e.Unwrap().Error(), tc.log)
			}
		})
	}
}

func TestAuthenticateStreams(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.many", endpoint.NewServerStream(endpoint.Emit(func(ctx context.Context, _ *addRequest, send func(*addResponse) error) error {
		return send(&addResponse{Sum: len(ctx.Value(userKey{}).(string))})
	}), middleware.Authenticate(byToken)))
	many := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.many")
	for _, err := range many(t.Context(), &addRequest{}) {
		assert.ErrorIs(t, err, endpoint.Unauthenticated)
	}
	for v, err := range many(endpoint.WithHeader(t.Context(), "Authorization", "bob"), &addRequest{}) {
		assert.NoError(t, err)
		assert.Equal(t, v.Sum, 3)
	}
}

// A context with a deadline of its own, below the call's, is one that may go on.
func TestAuthenticateDerived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, middleware.Authenticate(func(ctx context.Context, _ *endpoint.Call) (context.Context, error) {
			own, cancel := context.WithTimeout(ctx, time.Second)
			context.AfterFunc(ctx, cancel)
			return own, nil
		})))
		start := time.Now()
		_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		assert.Equal(t, time.Since(start), time.Second)
	})
}
