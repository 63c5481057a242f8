package middleware_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postbus.example/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addRequest struct{ A, B int }

type addResponse struct{ Sum int }

func add(_ context.Context, r *addRequest) (*addResponse, error) {
	return &addResponse{Sum: r.A + r.B}, nil
}

// transport is the least transport there is: one handler for all subjects.
type transport endpoint.Handler

func (f transport) Handler(string, *endpoint.Spec) endpoint.Handler { return endpoint.Handler(f) }

// caller calls h on svc.add with options.
func caller(h endpoint.Handler, opts ...endpoint.Option) endpoint.Unary[*addRequest, *addResponse] {
	return endpoint.Caller[*addRequest, *addResponse](transport(h), "svc.add", opts...)
}

// ok answers every call at once.
func ok(context.Context, *endpoint.Call) (any, error) { return &addResponse{Sum: 3}, nil }

// fail answers every call with an error.
func fail(err error) endpoint.Handler {
	return func(context.Context, *endpoint.Call) (any, error) { return nil, err }
}

// hang answers when the context ends, as a transport does.
func hang(ctx context.Context, _ *endpoint.Call) (any, error) {
	<-ctx.Done()
	return nil, endpoint.ContextError(ctx)
}

func serve(t testing.TB, m *endpoint.Mux, subject string, s endpoint.Servable) {
	t.Helper()
	if err := m.Serve(subject, s); err != nil {
		t.Fatal(err)
	}
}

// newCall makes a bare call for handlers that are run without a caller.
func newCall(side endpoint.Side, opts ...endpoint.Option) *endpoint.Call {
	c := endpoint.NewCall(endpoint.New(add, opts...).Spec(), "svc.add", side)
	c.SetReceived(time.Now())
	return c
}

// supply makes n calls in advance, for tests that count what else is allocated.
func supply(side endpoint.Side, n int) func() *endpoint.Call {
	calls := make([]*endpoint.Call, n)
	for i := range calls {
		calls[i] = newCall(side)
	}
	return func() *endpoint.Call {
		c := calls[0]
		calls = calls[1:]
		return c
	}
}

var errDraining = endpoint.Unavailable.New("shutting down").WithReason(endpoint.ReasonDraining).WithOutcome(endpoint.NotExecuted)

var errNobody = endpoint.Unavailable.New("nobody").WithReason(endpoint.ReasonNoResponders).WithOutcome(endpoint.NotExecuted)
