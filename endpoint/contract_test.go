package endpoint_test

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// What follows is compiled, and much of it never run: programs elsewhere use these names with these types.

type (
	ctxT = context.Context
	reqT = *addRequest
	resT = *addResponse
)

var (
	_ endpoint.Unary[reqT, resT]        = func(ctxT, reqT) (resT, error) { return nil, nil }
	_ endpoint.ServerStream[reqT, resT] = func(ctxT, reqT) iter.Seq2[resT, error] { return nil }
	_ endpoint.ClientStream[reqT, resT] = func(ctxT, iter.Seq2[reqT, error]) (resT, error) { return nil, nil }
	_ endpoint.BidiStream[reqT, resT]   = func(ctxT, iter.Seq2[reqT, error]) iter.Seq2[resT, error] { return nil }

	_ func(func(ctxT, reqT) (resT, error), ...endpoint.Option) *endpoint.Endpoint                                  = endpoint.New[reqT, resT]
	_ func(func(ctxT, reqT) iter.Seq2[resT, error], ...endpoint.Option) *endpoint.Endpoint                         = endpoint.NewServerStream[reqT, resT]
	_ func(func(ctxT, iter.Seq2[reqT, error]) (resT, error), ...endpoint.Option) *endpoint.Endpoint                = endpoint.NewClientStream[reqT, resT]
	_ func(func(ctxT, iter.Seq2[reqT, error]) iter.Seq2[resT, error], ...endpoint.Option) *endpoint.Endpoint       = endpoint.NewBidiStream[reqT, resT]
	_ func(func(ctxT, reqT, func(resT) error) error) endpoint.ServerStream[reqT, resT]                             = endpoint.Emit[reqT, resT]
	_ func(endpoint.Transport, string, ...endpoint.Option) endpoint.Unary[reqT, resT]                              = endpoint.Caller[reqT, resT]
	_ func(endpoint.Transport, string, ...endpoint.Option) endpoint.ServerStream[reqT, resT]                       = endpoint.ServerStreamCaller[reqT, resT]
	_ func(endpoint.Transport, string, ...endpoint.Option) endpoint.ClientStream[reqT, resT]                       = endpoint.ClientStreamCaller[reqT, resT]
	_ func(endpoint.Transport, string, ...endpoint.Option) endpoint.BidiStream[reqT, resT]                         = endpoint.BidiStreamCaller[reqT, resT]
	_ func(contract, ...endpoint.Option) endpoint.Servable                                                         = endpoint.Service[contract]
	_ func(endpoint.Transport, string, ...endpoint.Option) contract                                                = endpoint.Client[contract]
	_ func(endpoint.Transport, string, ...endpoint.Option) func(ctxT, reqT) iter.Seq2[endpoint.Reply[resT], error] = endpoint.Gather[reqT, resT]
	_ func(int) endpoint.Option                                                                                    = endpoint.Quorum
	_ func() endpoint.Option                                                                                       = endpoint.First
	_ func(time.Duration) endpoint.Option                                                                          = endpoint.Stall
	_ func(ctxT, string) ctxT                                                                                      = endpoint.WithInstance
	_ func(*endpoint.Endpoint) *endpoint.Spec                                                                      = (*endpoint.Endpoint).Spec
	_ func(*endpoint.Endpoint, ...endpoint.Middleware) *endpoint.Endpoint                                          = (*endpoint.Endpoint).With
	_ interface{ Endpoints() []*endpoint.Endpoint }                                                                = endpoint.Servable(nil)
	_ interface {
		Handler(string, *endpoint.Spec) endpoint.Handler
	} = endpoint.Transport(nil)
	_ interface {
		Serve(string, endpoint.Servable) error
	} = endpoint.Server(nil)
	_ interface {
		Discover(ctxT, string) ([]endpoint.Instance, error)
	} = endpoint.Directory(nil)
	_ interface{ Stats() []endpoint.Stats }                      = endpoint.StatsReporter(nil)
	_ func(...endpoint.MuxOption) *endpoint.Mux                  = endpoint.NewMux
	_ endpoint.Handler                                           = func(ctxT, *endpoint.Call) (any, error) { return nil, nil }
	_ endpoint.Middleware                                        = func(endpoint.Handler) endpoint.Handler { return nil }
	_ endpoint.Option                                            = endpoint.Middleware(nil)
	_ func(...endpoint.Middleware) endpoint.Middleware           = endpoint.Chain
	_ func(...endpoint.Middleware) endpoint.Middleware           = endpoint.OnServer
	_ func(...endpoint.Middleware) endpoint.Middleware           = endpoint.OnClient
	_ func(*endpoint.Spec, string, endpoint.Side) *endpoint.Call = endpoint.NewCall
	_ func(ctxT) *endpoint.Call                                  = endpoint.FromContext
	_ func(ctxT, ...string) ctxT                                 = endpoint.WithHeader
	_ func(ctxT) (ctxT, *endpoint.Report)                        = endpoint.Observe
	_ func(...endpoint.Middleware) endpoint.Option               = endpoint.With
	_ func() endpoint.Option                                     = endpoint.ReadOnly
	_ func() endpoint.Option                                     = endpoint.Idempotent
	_ func(time.Duration) endpoint.Option                        = endpoint.Timeout
	_ func(time.Duration) endpoint.Option                        = endpoint.IdleTimeout
	_ func(string) endpoint.Option                               = endpoint.Doc
	_ func(string) endpoint.Option                               = endpoint.Queue
	_ func(int) endpoint.Option                                  = endpoint.Concurrency
	_ func(int, time.Duration) endpoint.Option                   = endpoint.Backlog
	_ func(codec.Codec) endpoint.Option                          = endpoint.Codec
	_ func(string, string) endpoint.Option                       = endpoint.Meta
	_ func(string, endpoint.Code) endpoint.Option                = endpoint.Errors[*quotaError]
	_ func(string, endpoint.Code, error) endpoint.Option         = endpoint.ErrorValue
	_ error                                                      = endpoint.NotFound
	_ func(endpoint.Code, string) *endpoint.Error                = endpoint.Code.New
	_ func(endpoint.Code, string, ...any) *endpoint.Error        = endpoint.Code.Errorf
	_ func(endpoint.Code, error, string) *endpoint.Error         = endpoint.Code.Wrap
	_ func(*endpoint.Error, ...any) *endpoint.Error              = (*endpoint.Error).With
	_ func(*endpoint.Error) bool                                 = (*endpoint.Error).Remote
	_ func(*endpoint.Error) endpoint.Outcome                     = (*endpoint.Error).Outcome
	_ func(*endpoint.Error) string                               = (*endpoint.Error).Reason
	_ func(*endpoint.Error, endpoint.Outcome) *endpoint.Error    = (*endpoint.Error).WithOutcome
	_ func(*endpoint.Error, string) *endpoint.Error              = (*endpoint.Error).WithReason
	_ func(*endpoint.Error) *endpoint.Error                      = (*endpoint.Error).AsRemote
	_ func(error) endpoint.Code                                  = endpoint.CodeOf
	_ func(error) endpoint.Outcome                               = endpoint.OutcomeOf
	_ func(error) (quota, bool)                                  = endpoint.DetailOf[quota]
	_ []endpoint.Outcome                                         = []endpoint.Outcome{endpoint.NotSent, endpoint.NotExecuted, endpoint.MaybeExecuted, endpoint.Executed}
	_ []endpoint.Side                                            = []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide}
	_ uint8                                                      = uint8(endpoint.UnaryKind) + uint8(endpoint.ServerStreamKind) + uint8(endpoint.ClientStreamKind) + uint8(endpoint.BidiStreamKind) + uint8(endpoint.GatherKind)
	_                                                            = endpoint.Instance{Service: "", ID: "", Version: "", Description: "", Metadata: map[string]string{}, Endpoints: []endpoint.EndpointInfo{}}
	_                                                            = endpoint.Reply[resT]{Value: nil, Instance: "", Err: nil}
	_                                                            = endpoint.Error{Code: 0, Message: "", Details: []endpoint.Detail{{Type: "", Value: nil}}, RetryAfter: time.Second}
	_                                                            = endpoint.Report{Instance: "", Attempts: 0, Reply: endpoint.Header{}, Trailer: endpoint.Header{}}
	_ interface{ Ready(ctxT) error }                             = (*endpoint.Mux)(nil)
	_ endpoint.Spec                                              = endpoint.Spec{
		Service: "", Name: "", Doc: "", Queue: "", Kind: endpoint.UnaryKind, Request: reflect.Type(nil), Response: nil, Idempotent: true, ReadOnly: true,
		Timeout: time.Second, IdleTimeout: 0, Concurrency: 1, Backlog: 1, Codec: codec.JSON, Meta: map[string]string{},
	}
	_ interface {
		Get(string) string
		Set(string, string)
		Add(string, string)
		Values(string) []string
		Del(string)
		All() iter.Seq2[string, string]
	} = (*endpoint.Header)(nil)
	_ interface { //nolint:interfacebloat // all that a Call shows
		Message() (any, error)
		Body() []byte
		ReplyBody() []byte
		Trace() string
		SetTrace(string)
		Received() time.Time
		Instance() string
		Sizes() (int, int)
		Send(any) error
		Recv() (any, error)
		Committed() bool
		Retry() *endpoint.Call
		Adopt(*endpoint.Call)
		SetBody([]byte, string, codec.Codec)
		SetStream(func() (any, error), func(any) error)
		SetInstance(string)
		SetReceived(time.Time)
	} = (*endpoint.Call)(nil)
	_ = func(c *endpoint.Call) (*endpoint.Spec, string, endpoint.Side, int, [3]endpoint.Header) {
		return c.Spec, c.Subject, c.Side, c.Attempt, [3]endpoint.Header{c.Header, c.Reply, c.Trailer}
	}
)

// contract is the struct of the whole program.
type contract struct {
	Add    endpoint.Unary[reqT, resT]        `rpc:"add,idempotent,timeout=2s" doc:"adds two numbers"`
	Primes endpoint.ServerStream[reqT, resT] `rpc:"primes,readonly"`
	Total  endpoint.ClientStream[reqT, resT]
	Chat   endpoint.BidiStream[reqT, resT]
}

func TestTheWholeProgram(t *testing.T) {
	bus := endpoint.NewMux()
	bus.Use(func(next endpoint.Handler) endpoint.Handler { return next })
	ep := endpoint.New(add, endpoint.Doc("adds two numbers"), endpoint.Idempotent(), endpoint.With(noop))
	assert.NoError(t, bus.Serve("svc.add", ep))

	sum := endpoint.Caller[*addRequest, *addResponse](bus, "svc.add", endpoint.Idempotent(), endpoint.Middleware(noop))
	resp, err := sum(t.Context(), &addRequest{A: 1, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, resp, &addResponse{Sum: 3})
	_, err = sum(t.Context(), &addRequest{B: 13})
	assert.True(t, errors.Is(err, endpoint.FailedPrecondition))
	assert.Equal(t, err.(*endpoint.Error).Message, "13 is unlucky") //nolint:errorlint // it must be one itself

	assert.NoError(t, bus.Serve("math", endpoint.Service(contract{Add: add, Primes: count})))
	math := endpoint.Client[contract](bus, "math")
	var got []int
	for p, err := range math.Primes(t.Context(), &addRequest{A: 100}) {
		assert.NoError(t, err)
		if got = append(got, p.Sum); p.Sum == 3 {
			break
		}
	}
	assert.Equal(t, got, []int{1, 2, 3})
	_, err = math.Total(t.Context(), inputs(1))
	asError(t, err, endpoint.Unavailable, endpoint.NotExecuted)

	fake := contract{Add: func(context.Context, *addRequest) (*addResponse, error) { return &addResponse{Sum: 42}, nil }}
	resp, err = fake.Add(t.Context(), nil)
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 42)
}

func noop(next endpoint.Handler) endpoint.Handler {
	return func(ctx context.Context, c *endpoint.Call) (any, error) { return next(ctx, c) }
}

func TestCallerServedAgain(t *testing.T) {
	back := serve(t, endpoint.New(add))
	front := serve(t, endpoint.New(caller(back)))
	resp, err := caller(front)(t.Context(), &addRequest{A: 2, B: 2})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 4)

	// A caller's error is not the proxy's own words.
	_, err = caller(front)(t.Context(), &addRequest{B: 13})
	e := asError(t, err, endpoint.Internal, endpoint.Executed)
	assert.Equal(t, e.Message, "")

	stream := serve(t, endpoint.NewServerStream(count))
	again := serve(t, endpoint.NewServerStream(endpoint.ServerStreamCaller[*addRequest, *addResponse](stream, "svc.op")))
	sums, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](again, "svc.op")(t.Context(), &addRequest{A: 3}))
	assert.NoError(t, err)
	assert.Equal(t, sums, []int{1, 2, 3})
}
