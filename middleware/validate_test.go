package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

// picky checks itself, by a method of its pointer.
type picky struct{ A int }

var errPicky = endpoint.OutOfRange.New("A is past the end").With(map[string]int{"most": 9}).WithOutcome(endpoint.NotSent)

func (p *picky) Validate() error {
	switch {
	case p.A < 0:
		return fmt.Errorf("A is %d, must not be negative", p.A)
	case p.A == 9:
		return fmt.Errorf("wrapped: %w", errPicky)
	case p.A == 10:
		return endpoint.FailedPrecondition
	case p.A == 13:
		panic("unlucky")
	}
	return nil
}

// plain checks itself, by a method of its value.
type plain struct{ A int }

func (p plain) Validate() error { return (*picky)(&p).Validate() }

// holder promotes the method of what may be nil.
type holder struct{ *picky }

// other has a method of that name and another meaning.
type other struct{ A int }

func (other) Validate(context.Context) error { return errors.New("not asked") }

// validity serves any request type on a Mux, with middleware on one side, and counts what got to the handler.
func validity[Req any](t *testing.T, side endpoint.Side, mw endpoint.Middleware) (call endpoint.Unary[Req, *addResponse], ran *atomic.Int64) {
	t.Helper()
	m, ran := endpoint.NewMux(), &atomic.Int64{}
	var server, client []endpoint.Option
	if side == endpoint.ServerSide {
		server = append(server, mw)
	} else {
		client = append(client, mw)
	}
	serve(t, m, "svc.add", endpoint.New(func(context.Context, Req) (*addResponse, error) {
		ran.Add(1)
		return &addResponse{}, nil
	}, server...))
	return endpoint.Caller[Req, *addResponse](m, "svc.add", client...), ran
}

func TestValidate(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		for _, tc := range []struct {
			a      int
			code   endpoint.Code
			text   string
			reason string
		}{
			{a: 1},
			{-1, endpoint.InvalidArgument, "A is -1, must not be negative", ""},
			{9, endpoint.OutOfRange, "A is past the end", ""},
			{10, endpoint.FailedPrecondition, "", ""},
			{13, endpoint.Internal, "", endpoint.ReasonPanic},
		} {
			t.Run(fmt.Sprint(side, tc.a), func(t *testing.T) {
				check := func(err error, ran *atomic.Int64) {
					t.Helper()
					assert.Equal(t, endpoint.CodeOf(err), tc.code)
					if err == nil {
						assert.Equal(t, ran.Load(), 1)
						return
					}
					assert.Equal(t, ran.Load(), 0)
					e, _ := errors.AsType[*endpoint.Error](err)
					assert.Equal(t, e.Message, tc.text)
					assert.Equal(t, e.Reason(), tc.reason)
					assert.Equal(t, e.Remote(), side == endpoint.ServerSide)
					if assert.Equal(t, len(e.Details) > 0, tc.a == 9); side == endpoint.ServerSide {
						assert.Equal(t, e.Outcome(), endpoint.NotExecuted)
					} else {
						assert.Equal(t, e.Outcome(), endpoint.NotSent)
					}
				}
				byPointer, ran := validity[*picky](t, side, middleware.Validate())
				_, err := byPointer(t.Context(), &picky{tc.a})
				check(err, ran)
				byValue, ran := validity[picky](t, side, middleware.Validate())
				_, err = byValue(t.Context(), picky{tc.a})
				check(err, ran)
				ofValue, ran := validity[*plain](t, side, middleware.Validate())
				_, err = ofValue(t.Context(), &plain{tc.a})
				check(err, ran)
				with, ran := validity[*other](t, side, middleware.ValidateWith(func(m any) error { return plain{m.(*other).A}.Validate() }))
				_, err = with(t.Context(), &other{tc.a})
				check(err, ran)
			})
		}
	}
}

func TestValidateNothing(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		none, ran := validity[*other](t, side, middleware.Validate())
		_, err := none(t.Context(), &other{-1})
		assert.NoError(t, err)
		assert.Equal(t, ran.Load(), 1)

		promoted, ran := validity[*holder](t, side, middleware.Validate())
		_, err = promoted(t.Context(), &holder{})
		assert.ErrorIs(t, err, endpoint.Internal, "a method of nil panics")
		assert.Equal(t, ran.Load(), 0)
	}
	_, err := caller(ok, middleware.Validate())(t.Context(), nil)
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
}

// Without the method nothing is decoded; with it, what can't be decoded is the peer's fault as ever.
func TestValidateDecodes(t *testing.T) {
	for _, tc := range []struct {
		spec *endpoint.Spec
		mw   endpoint.Middleware
		want error
	}{
		{endpoint.New(add).Spec(), middleware.Validate(), nil},
		{&endpoint.Spec{}, middleware.Validate(), endpoint.InvalidArgument},
		{endpoint.New(add).Spec(), middleware.ValidateWith(func(any) error { return nil }), endpoint.InvalidArgument},
		{endpoint.New(func(context.Context, *picky) (*addResponse, error) { return nil, nil }).Spec(), middleware.Validate(), endpoint.InvalidArgument},
	} {
		c := endpoint.NewCall(tc.spec, "svc.add", endpoint.ServerSide)
		c.SetBody([]byte("not json"), "application/json", codec.JSON)
		if _, err := tc.mw(ok)(t.Context(), c); tc.want != nil {
			assert.ErrorIs(t, err, tc.want)
			assert.Equal(t, reasonOf(err), endpoint.ReasonDecode)
		} else {
			assert.NoError(t, err)
		}
	}
}

// One value surrounds endpoints of several types, and a handler of one may be called with another's Spec.
func TestValidateSeveralTypes(t *testing.T) {
	h := middleware.Validate()(ok)
	for range 2 {
		for _, spec := range []*endpoint.Spec{endpoint.New(add).Spec(), endpoint.New(func(context.Context, *picky) (*addResponse, error) { return nil, nil }).Spec()} {
			c := endpoint.NewCall(spec, "svc.add", endpoint.ServerSide)
			c.SetBody([]byte(`{"A":-1}`), "application/json", codec.JSON)
			_, err := h(t.Context(), c)
			assert.Equal(t, err != nil, spec.Request.Elem().Name() == "picky")
		}
	}
}

func TestValidateServerStream(t *testing.T) {
	m := endpoint.NewMux()
	serve(t, m, "svc.list", endpoint.NewServerStream(func(context.Context, *picky) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) { yield(&addResponse{}, nil) }
	}, middleware.Validate()))
	for _, err := range endpoint.ServerStreamCaller[*picky, *addResponse](m, "svc.list")(t.Context(), &picky{-1}) {
		assert.ErrorIs(t, err, endpoint.InvalidArgument)
		assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
	}
}

func pickies(as ...int) iter.Seq2[*picky, error] {
	return func(yield func(*picky, error) bool) {
		for _, a := range as {
			if !yield(&picky{a}, nil) {
				return
			}
		}
	}
}

func TestValidateItems(t *testing.T) {
	for name, tc := range map[string]struct {
		server, client []endpoint.Option
		careless       bool // the handler does not pass the error on
		own            error
		remote         bool
	}{
		"server":                     {server: []endpoint.Option{middleware.Validate()}, remote: true},
		"server, a careless handler": {server: []endpoint.Option{middleware.Validate()}, careless: true, remote: true},
		"server, an error of its own": {
			server: []endpoint.Option{middleware.Validate()}, own: endpoint.Aborted.New("mine"), remote: true,
		},
		"client": {client: []endpoint.Option{middleware.Validate()}},
		"client, inside of Retry, twice": {
			client: []endpoint.Option{middleware.Retry(middleware.RetryPolicy{}), middleware.Validate(), middleware.Validate()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := endpoint.NewMux()
			var got atomic.Int64
			serve(t, m, "svc.total", endpoint.NewClientStream(func(_ context.Context, in iter.Seq2[*picky, error]) (*addResponse, error) {
				for _, err := range in {
					switch {
					case err == nil:
						got.Add(1)
					case tc.own != nil:
						return nil, tc.own
					case !tc.careless:
						return nil, err
					}
				}
				for _, err := range in { // nor is there anything after it
					assert.True(t, err != nil)
				}
				return &addResponse{}, nil
			}, tc.server...))
			total := endpoint.ClientStreamCaller[*picky, *addResponse](m, "svc.total", tc.client...)
			_, err := total(t.Context(), pickies(1, 2))
			assert.NoError(t, err)
			assert.Equal(t, got.Load(), 2)

			_, err = total(t.Context(), pickies(1, 9))
			assert.True(t, endpoint.OutcomeOf(err) != endpoint.NotSent, "whatever the method claims")
			got.Store(2)
			_, err = total(t.Context(), pickies(1, -1, 2))
			e, _ := errors.AsType[*endpoint.Error](err)
			assert.Equal(t, e.Remote(), tc.remote)
			if tc.own != nil {
				assert.ErrorIs(t, err, endpoint.Aborted)
				return
			}
			assert.ErrorIs(t, err, endpoint.InvalidArgument)
			assert.Equal(t, e.Message, "A is -1, must not be negative")
			if tc.remote {
				assert.Equal(t, e.Outcome(), endpoint.Executed)
				assert.Equal(t, got.Load(), 3)
			} else {
				assert.Equal(t, e.Outcome(), endpoint.MaybeExecuted)
			}
		})
	}
}
