package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The table stands on the wire: it may grow and must never change.
func TestCodesGolden(t *testing.T) {
	var b strings.Builder
	for c := endpoint.OK; c <= endpoint.Unauthenticated; c++ {
		fmt.Fprintf(&b, "%d %s %d\n", c, c, c.Status())
		back, ok := endpoint.ParseCode(c.String())
		assert.True(t, ok && back == c, c.String())
	}
	assert.Equal(t, b.String(), `0 ok 200
1 canceled 499
2 unknown 500
3 invalid_argument 400
4 deadline_exceeded 504
5 not_found 404
6 already_exists 409
7 permission_denied 403
8 resource_exhausted 429
9 failed_precondition 400
10 aborted 409
11 out_of_range 400
12 unimplemented 501
13 internal 500
14 unavailable 503
15 data_loss 500
16 unauthenticated 401
`)
	b.Reset()
	for status := range 600 {
		if c := endpoint.CodeFromStatus(status); c != endpoint.Unknown {
			fmt.Fprintf(&b, "%d %s\n", status, c)
		}
	}
	assert.Equal(t, b.String(), `400 invalid_argument
401 unauthenticated
403 permission_denied
404 not_found
408 deadline_exceeded
409 aborted
412 failed_precondition
413 resource_exhausted
429 resource_exhausted
499 canceled
500 internal
501 unimplemented
502 unavailable
503 unavailable
504 deadline_exceeded
`)
	_, ok := endpoint.ParseCode("Not_Found")
	assert.True(t, !ok)
	assert.Equal(t, endpoint.Code(17).String(), "code(17)")
	assert.Equal(t, endpoint.Code(200).Status(), 500)
}

func TestOutcomesGolden(t *testing.T) {
	got := fmt.Sprint(endpoint.Outcome(0), endpoint.Outcome(1), endpoint.Outcome(2), endpoint.Outcome(3), endpoint.Outcome(9))
	assert.Equal(t, got, "maybe_executed not_sent not_executed executed maybe_executed")
	assert.Equal(t, endpoint.MaybeExecuted, 0)
}

func TestErrorIs(t *testing.T) {
	cause := io.ErrUnexpectedEOF
	e := endpoint.NotFound.Wrap(cause, "no user")
	assert.ErrorIs(t, e, endpoint.NotFound)
	assert.ErrorIs(t, e, cause)
	assert.ErrorIs(t, fmt.Errorf("x: %w", e), endpoint.NotFound)
	assert.True(t, !errors.Is(e, endpoint.Aborted))
	assert.ErrorIs(t, endpoint.DeadlineExceeded.New(""), context.DeadlineExceeded)
	assert.ErrorIs(t, endpoint.Canceled.New(""), context.Canceled)
	assert.True(t, !errors.Is(endpoint.Canceled.New(""), context.DeadlineExceeded))
}

func TestErrorText(t *testing.T) {
	e := endpoint.Unavailable.Wrap(io.EOF, "no peer").WithReason("no_responders")
	assert.Equal(t, e.Error(), "unavailable (no_responders): no peer")
	assert.Equal(t, endpoint.Internal.Wrap(io.EOF, "").Error(), "internal: EOF")
	assert.Equal(t, endpoint.Internal.New("").Error(), "internal")
}

func TestErrorSettersCopy(t *testing.T) {
	e := endpoint.Aborted.New("x")
	n := e.WithOutcome(endpoint.Executed).WithReason("r").AsRemote().WithRetryAfter(time.Second).WithCause(io.EOF)
	assert.Equal(t, *e, *endpoint.Aborted.New("x"))
	assert.True(t, n.Remote() && n.Outcome() == endpoint.Executed && n.Reason() == "r" && n.RetryAfter == time.Second)
	assert.ErrorIs(t, n, io.EOF)
	assert.True(t, !n.AsAuthored().Remote())
}

func TestCodeAndOutcomeOf(t *testing.T) {
	var none *endpoint.Error
	for _, c := range []struct {
		err     error
		code    endpoint.Code
		outcome endpoint.Outcome
	}{
		{nil, endpoint.OK, endpoint.Executed},
		{errors.New("x"), endpoint.Unknown, endpoint.MaybeExecuted},
		{endpoint.Aborted, endpoint.Aborted, endpoint.MaybeExecuted},
		{fmt.Errorf("x: %w", endpoint.Aborted), endpoint.Aborted, endpoint.MaybeExecuted},
		{fmt.Errorf("x: %w", endpoint.Aborted.New("").WithOutcome(endpoint.NotSent)), endpoint.Aborted, endpoint.NotSent},
		{fmt.Errorf("x: %w", context.Canceled), endpoint.Canceled, endpoint.MaybeExecuted},
		{context.DeadlineExceeded, endpoint.DeadlineExceeded, endpoint.MaybeExecuted},
		{errors.Join(io.EOF, endpoint.NotFound.New("")), endpoint.NotFound, endpoint.MaybeExecuted},
		{none, endpoint.Unknown, endpoint.MaybeExecuted},
	} {
		assert.Equal(t, endpoint.CodeOf(c.err), c.code, fmt.Sprintf("%T", c.err))
		assert.Equal(t, endpoint.OutcomeOf(c.err), c.outcome, fmt.Sprintf("%T", c.err))
	}
}

func TestCrossing(t *testing.T) {
	var none *endpoint.Error
	_, received := caller(transportFunc(func(context.Context, *endpoint.Call) (any, error) {
		return nil, endpoint.NotFound.New("of the transport")
	}))(t.Context(), &addRequest{})
	for name, c := range map[string]struct {
		err     error
		code    endpoint.Code
		message string
	}{
		"authored":           {endpoint.NotFound.Wrap(io.EOF, "no user"), endpoint.NotFound, "no user"},
		"authored, wrapped":  {fmt.Errorf("ctx: %w", endpoint.NotFound.New("no user")), endpoint.NotFound, "no user"},
		"a code":             {endpoint.NotFound, endpoint.NotFound, ""},
		"the code OK":        {endpoint.OK, endpoint.Unknown, ""},
		"an error of OK":     {&endpoint.Error{Message: "x"}, endpoint.Unknown, "x"},
		"no code":            {endpoint.Code(99), endpoint.Unknown, ""},
		"foreign":            {errors.New("secret"), endpoint.Unknown, ""},
		"context":            {fmt.Errorf("secret: %w", context.Canceled), endpoint.Canceled, ""},
		"deadline":           {context.DeadlineExceeded, endpoint.DeadlineExceeded, ""},
		"of a peer":          {endpoint.NotFound.New("secret").AsRemote(), endpoint.Internal, ""},
		"of a peer, context": {endpoint.DeadlineExceeded.New("secret").AsRemote(), endpoint.DeadlineExceeded, ""},
		"out of a caller":    {received, endpoint.Internal, ""},
		"caller's, wrapped":  {fmt.Errorf("secret: %w", received), endpoint.Internal, ""},
		"forwarded":          {endpoint.NotFound.New("no user").AsRemote().AsAuthored(), endpoint.NotFound, "no user"},
		"a nil *Error":       {none, endpoint.Unknown, ""},
	} {
		got := endpoint.Crossing(c.err)
		assert.Equal(t, got.Code, c.code, name)
		assert.Equal(t, got.Message, c.message, name)
		assert.Equal(t, got.Unwrap(), error(nil), name)
	}
	assert.True(t, endpoint.Crossing(nil) == nil)
	peer := endpoint.NotFound.New("x").With(quota{}).AsRemote()
	assert.Equal(t, len(endpoint.Crossing(peer).Details), 0)
}

// Details beyond what a reader takes are left out where it is known, not by the reader.
func TestDetailsThatCross(t *testing.T) {
	e := endpoint.InvalidArgument.New("a form full of faults")
	for i := range endpoint.MaxDetails + 20 {
		e = e.With(quota{Limit: i})
	}
	_, err := caller(serve(t, endpoint.New(failing(e))))(t.Context(), request)
	got := asError(t, err, endpoint.InvalidArgument, endpoint.Executed)
	assert.Equal(t, got.Message, e.Message)
	assert.Equal(t, got.Details, e.Details[:endpoint.MaxDetails])
	assert.Equal(t, len(e.Details), endpoint.MaxDetails+20)
	_ = append(endpoint.Crossing(e).Details, endpoint.Detail{Type: "x"})
	assert.Equal(t, e.Details[endpoint.MaxDetails].Type, "endpoint_test.quota")
}

// A client middleware can't launder a peer's error by wrapping it into one of its own.
func TestMiddlewareErrorIsNotAuthored(t *testing.T) {
	mine := errors.New("mine")
	for name, mw := range map[string]endpoint.Middleware{
		"wraps": func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				_, err := next(ctx, c)
				return nil, fmt.Errorf("%w: %w", mine, err)
			}
		},
		"wraps its own": func(endpoint.Handler) endpoint.Handler {
			return func(context.Context, *endpoint.Call) (any, error) {
				return nil, fmt.Errorf("%w: %w", mine, endpoint.NotFound.New("secret"))
			}
		},
	} {
		back := serve(t, endpoint.New(add))
		_, err := caller(back, endpoint.With(mw))(t.Context(), &addRequest{B: 13})
		assert.ErrorIs(t, err, mine, name)
		got := endpoint.Crossing(err)
		assert.Equal(t, got.Code, endpoint.Internal, name)
		assert.Equal(t, got.Message, "", name)
	}
}

var errSoldOut = errors.New("sold out")

func declared() []endpoint.Option {
	return []endpoint.Option{
		endpoint.Errors[*quotaError]("quota", endpoint.ResourceExhausted),
		endpoint.ErrorValue("sold_out", endpoint.FailedPrecondition, errSoldOut),
	}
}

func failing(err error) func(context.Context, *addRequest) (*addResponse, error) {
	return func(context.Context, *addRequest) (*addResponse, error) { return nil, err }
}

func TestDeclaredErrors(t *testing.T) {
	call := func(err error, opts ...endpoint.Option) error {
		m := serve(t, endpoint.New(failing(err), declared()...))
		_, got := caller(m, opts...)(t.Context(), &addRequest{})
		return got
	}

	got := call(fmt.Errorf("secret: %w", &quotaError{Limit: 3, Wait: time.Second}), declared()...)
	e := asError(t, got, endpoint.ResourceExhausted, endpoint.Executed)
	assert.Equal(t, e.Message, "over the quota of 3")
	q, ok := errors.AsType[*quotaError](got)
	assert.True(t, ok)
	assert.Equal(t, *q, quotaError{Limit: 3, Wait: time.Second})

	got = call(fmt.Errorf("secret: %w", errSoldOut), declared()...)
	e = asError(t, got, endpoint.FailedPrecondition, endpoint.Executed)
	assert.Equal(t, e.Message, "sold out")
	assert.ErrorIs(t, got, errSoldOut)

	// An authored error keeps its own code and words, and carries the declared one.
	got = call(endpoint.Aborted.Wrap(errSoldOut, "try another"), declared()...)
	assert.Equal(t, asError(t, got, endpoint.Aborted, endpoint.Executed).Message, "try another")
	assert.ErrorIs(t, got, errSoldOut)

	// A caller that does not declare it gets code and text.
	got = call(errSoldOut)
	asError(t, got, endpoint.FailedPrecondition, endpoint.Executed)
	assert.True(t, !errors.Is(got, errSoldOut))
}

func TestDeclaredErrorOverStream(t *testing.T) {
	m := serve(t, endpoint.NewServerStream(func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) {
			_ = yield(&addResponse{Sum: 1}, nil) && yield(nil, errSoldOut)
		}
	}, declared()...))
	sums, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op", declared()...)(t.Context(), &addRequest{}))
	assert.Equal(t, sums, []int{1})
	assert.ErrorIs(t, err, errSoldOut)
}

// A declared error that came out of a caller passes, and nothing else of the peer's words.
func TestDeclaredErrorThroughAProxy(t *testing.T) {
	back := serve(t, endpoint.New(failing(endpoint.Aborted.Wrap(errSoldOut, "secret").With(quota{Limit: 9})), declared()...))
	front := serve(t, endpoint.New(caller(back, declared()...), declared()...))
	_, err := caller(front, declared()...)(t.Context(), &addRequest{})
	e := asError(t, err, endpoint.FailedPrecondition, endpoint.Executed)
	assert.Equal(t, e.Message, "sold out")
	assert.ErrorIs(t, err, errSoldOut)
	assert.Equal(t, len(e.Details), 1)
}

type panickyError struct{ N int }

func (*panickyError) Error() string                { return "panicky" }
func (*panickyError) UnmarshalJSON([]byte) error   { panic("boom") }
func (*panickyError) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

func TestHostileDeclaredValue(t *testing.T) {
	for _, value := range []string{"null", "{", `"x"`, ""} {
		tr := transportFunc(func(context.Context, *endpoint.Call) (any, error) {
			return nil, endpoint.Aborted.New("x").With(endpoint.Detail{Type: "quota", Value: []byte(value)}).AsRemote()
		})
		_, err := caller(tr, declared()...)(t.Context(), &addRequest{})
		asError(t, err, endpoint.Aborted, endpoint.MaybeExecuted)
		_, ok := errors.AsType[*quotaError](err)
		assert.True(t, !ok, value)
	}
	m := serve(t, endpoint.New(failing(&panickyError{}), endpoint.Errors[*panickyError]("p", endpoint.Aborted)))
	_, err := caller(m, endpoint.Errors[*panickyError]("p", endpoint.Aborted))(t.Context(), &addRequest{})
	asError(t, err, endpoint.Aborted, endpoint.Executed)
}

type brokenError struct{ how string }

func (*brokenError) Error() string { return "secret" }

func (e *brokenError) MarshalJSON() ([]byte, error) {
	switch e.how {
	case "panic":
		panic("secret")
	case "no JSON":
		return []byte("secret"), nil
	default:
		return nil, errors.New("secret")
	}
}

// A declared error that can't be encoded crosses as one that is not declared, one that panics as internal.
func TestDeclaredErrorThatCantBeEncoded(t *testing.T) {
	opt := endpoint.Errors[*brokenError]("broken", endpoint.Aborted)
	for how, want := range map[string]endpoint.Code{"error": endpoint.Unknown, "no JSON": endpoint.Unknown, "panic": endpoint.Internal} {
		broken := &brokenError{how}
		_, err := caller(serve(t, endpoint.New(failing(broken), opt)), opt)(t.Context(), request)
		assert.Equal(t, asError(t, err, want, endpoint.Executed).Message, "", how)

		_, err = collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](serve(t, endpoint.NewServerStream(
			func(context.Context, *addRequest) iter.Seq2[*addResponse, error] {
				return func(yield func(*addResponse, error) bool) { yield(nil, broken) }
			}, opt)), "svc.op", opt)(t.Context(), request))
		assert.Equal(t, asError(t, err, want, endpoint.Executed).Message, "", how)

		_, err = caller(serve(t, endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
			return nil, endpoint.Aborted.New("mine").With(broken)
		})))(t.Context(), request)
		if how == "panic" {
			asError(t, err, endpoint.Internal, endpoint.Executed)
			continue
		}
		e := asError(t, err, endpoint.Aborted, endpoint.Executed)
		assert.Equal(t, e.Details, []endpoint.Detail{{Type: "endpoint_test.brokenError"}}, how)
	}
}
