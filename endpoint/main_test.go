package endpoint_test

import (
	"context"
	"iter"
	"testing"

	"go.uber.org/goleak"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type addRequest struct{ A, B int }

type addResponse struct{ Sum int }

func add(_ context.Context, r *addRequest) (*addResponse, error) {
	if r.B == 13 {
		return nil, endpoint.FailedPrecondition.Errorf("%d is unlucky", r.B)
	}
	return &addResponse{Sum: r.A + r.B}, nil
}

// count yields 1 to r.A, and fails after that if r.B is set.
func count(_ context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
	return func(yield func(*addResponse, error) bool) {
		for i := range r.A {
			if !yield(&addResponse{Sum: i + 1}, nil) {
				return
			}
		}
		if r.B != 0 {
			yield(nil, endpoint.DataLoss.New("the rest is lost"))
		}
	}
}

func total(_ context.Context, in iter.Seq2[*addRequest, error]) (*addResponse, error) {
	sum := 0
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		sum += r.A + r.B
	}
	return &addResponse{Sum: sum}, nil
}

func echo(_ context.Context, in iter.Seq2[*addRequest, error]) iter.Seq2[*addResponse, error] {
	return func(yield func(*addResponse, error) bool) {
		for r, err := range in {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&addResponse{Sum: r.A + r.B}, nil) {
				return
			}
		}
	}
}

// inputs yields requests with A from 1 to n.
func inputs(n int) iter.Seq2[*addRequest, error] {
	return func(yield func(*addRequest, error) bool) {
		for i := range n {
			if !yield(&addRequest{A: i + 1}, nil) {
				return
			}
		}
	}
}

// serve gives a Mux that serves one endpoint on "svc.op".
func serve(t testing.TB, ep endpoint.Servable, opts ...endpoint.MuxOption) *endpoint.Mux {
	t.Helper()
	m := endpoint.NewMux(opts...)
	assert.NoError(t, m.Serve("svc.op", ep))
	return m
}

// caller calls "svc.op" with the types of add.
func caller(tr endpoint.Transport, opts ...endpoint.Option) endpoint.Unary[*addRequest, *addResponse] {
	return endpoint.Caller[*addRequest, *addResponse](tr, "svc.op", opts...)
}

// collect ranges over a stream to its end.
func collect(seq iter.Seq2[*addResponse, error]) (sums []int, err error) {
	for v, e := range seq {
		if e != nil {
			err = e
			continue
		}
		sums = append(sums, v.Sum)
	}
	return sums, err
}

// asError asserts what every error of a call is.
func asError(t testing.TB, err error, code endpoint.Code, outcome endpoint.Outcome) *endpoint.Error {
	t.Helper()
	e, ok := err.(*endpoint.Error) //nolint:errorlint // it must be one itself
	if !ok {
		t.Fatalf("got %T (%v), want *endpoint.Error of %v", err, err, code)
	}
	if e.Code != code || e.Outcome() != outcome {
		t.Fatalf("got %v, %v; want %v, %v", e, e.Outcome(), code, outcome)
	}
	return e
}

// transportFunc is the smallest transport.
type transportFunc endpoint.Handler

func (f transportFunc) Handler(string, *endpoint.Spec) endpoint.Handler { return endpoint.Handler(f) }
