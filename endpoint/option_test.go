package endpoint_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestOptionsThatDoNotApply(t *testing.T) {
	for name, c := range map[string]struct {
		opts   []endpoint.Option
		server string // the word in the fault, "" for none
		client string
	}{
		"IdleTimeout": {[]endpoint.Option{endpoint.IdleTimeout(1)}, "IdleTimeout", "IdleTimeout"},
		"Quorum":      {[]endpoint.Option{endpoint.Quorum(1)}, "Quorum", "Quorum"},
		"Stall":       {[]endpoint.Option{endpoint.Stall(1)}, "Stall", "Stall"},
		"Doc":         {[]endpoint.Option{endpoint.Doc("x")}, "", "Doc"},
		"Queue":       {[]endpoint.Option{endpoint.Queue("x")}, "", "Queue"},
		"Concurrency": {[]endpoint.Option{endpoint.Concurrency(1)}, "", "Concurrency"},
		"Backlog":     {[]endpoint.Option{endpoint.Backlog(1, 0)}, "", "Backlog"},
		"Meta":        {[]endpoint.Option{endpoint.Meta("a", "b")}, "", "Meta"},
		"Timeout":     {[]endpoint.Option{endpoint.Timeout(0)}, "Timeout", "Timeout"},
		"negative":    {[]endpoint.Option{endpoint.Concurrency(0), endpoint.Backlog(-1, 0)}, "not positive", "Concurrency"},
		"a bad queue": {[]endpoint.Option{endpoint.Queue("a b")}, "Queue", "Queue"},
		"reserved":    {[]endpoint.Option{endpoint.Meta("rpc.x", "")}, "Meta", "Meta"},
		"nil codec":   {[]endpoint.Option{endpoint.Codec(nil)}, "codec is nil", "codec is nil"},
		"nil":         {[]endpoint.Option{nil}, "nil option", "nil option"},
		"nil mw":      {[]endpoint.Option{endpoint.Middleware(nil)}, "nil middleware", "nil middleware"},
		"nil in With": {[]endpoint.Option{endpoint.With(nil, noop)}, "nil middleware", "nil middleware"},
		"no name":     {[]endpoint.Option{endpoint.ErrorValue("", endpoint.Aborted, errSoldOut)}, "ErrorValue", "ErrorValue"},
		"OK":          {[]endpoint.Option{endpoint.ErrorValue("a", endpoint.OK, errSoldOut)}, "ErrorValue", "ErrorValue"},
		"nil value":   {[]endpoint.Option{endpoint.ErrorValue("a", endpoint.Aborted, nil)}, "error is nil", "error is nil"},
		"interface":   {[]endpoint.Option{endpoint.Errors[error]("a", endpoint.Aborted)}, "interface", "interface"},
		"twice":       {append(declared(), endpoint.ErrorValue("quota", endpoint.Aborted, errors.New("x"))), "twice", "twice"},
		"good": {[]endpoint.Option{
			endpoint.Timeout(1e9), endpoint.Idempotent(), endpoint.Codec(codec.JSON), endpoint.With(noop), endpoint.With(),
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := endpoint.New(add, c.opts...).Err()
			assert.Equal(t, err != nil, c.server != "")
			if err != nil {
				assert.Contains(t, err.Error(), c.server)
			}
			_, err = caller(serve(t, endpoint.New(add)), c.opts...)(t.Context(), &addRequest{})
			assert.Equal(t, err != nil, c.client != "")
			if err != nil {
				e := asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
				assert.Contains(t, e.Message, c.client)
				assert.Equal(t, e.Reason(), endpoint.ReasonConstruction)
			}
		})
	}
}

func TestCallerFaults(t *testing.T) {
	var nilMux *endpoint.Mux
	type bad struct{ F func() }
	_, err := caller(nilMux, nil, endpoint.Doc("x"))(t.Context(), &addRequest{})
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, "transport is nil", "nil option", "Doc")
	_, err = caller(nil)(t.Context(), &addRequest{})
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
	m := endpoint.NewMux()
	_, err = endpoint.Caller[*bad, *addResponse](m, "a.*")(t.Context(), &bad{})
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, "wildcard", "bad.F")
	nilHandler := func(endpoint.Handler) endpoint.Handler { return nil }
	_, err = caller(m, endpoint.With(nilHandler))(t.Context(), &addRequest{})
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
	_, err = caller(nilTransport{})(t.Context(), &addRequest{})
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
	_, err = m.Handler("a..b", nil)(t.Context(), endpoint.NewCall(&endpoint.Spec{}, "a..b", endpoint.ClientSide))
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)

	_, err = collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "")(t.Context(), &addRequest{}))
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
	_, err = endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "")(t.Context(), inputs(1))
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
}

type nilTransport struct{}

func (nilTransport) Handler(string, *endpoint.Spec) endpoint.Handler { return nil }

func TestSpec(t *testing.T) {
	s := endpoint.New(add, endpoint.ReadOnly(), endpoint.Doc("d"), endpoint.Queue("g"), endpoint.Concurrency(3), endpoint.Backlog(0, time.Second),
		endpoint.Meta("k", "v"), endpoint.Timeout(time.Minute), endpoint.Timeout(time.Second), endpoint.Timeout(time.Hour)).Spec()
	assert.True(t, s.ReadOnly && s.Idempotent && s.Doc == "d" && s.Queue == "g" && s.Concurrency == 3 && s.Backlog < 0 && s.Timeout == time.Second)
	assert.Equal(t, s.Meta, map[string]string{"k": "v"})
	assert.Equal(t, s.Request.String()+" "+s.Response.String(), "*endpoint_test.addRequest *endpoint_test.addResponse")
	assert.Equal(t, endpoint.New(add).Spec().Queue, "q")
	ep := endpoint.New(add)
	bound := ep.Bind("s", "n")
	assert.Equal(t, []string{ep.Spec().Name, bound.Spec().Service, bound.Spec().Name}, []string{"", "s", "n"})
	for k := endpoint.UnaryKind; k <= endpoint.GatherKind; k++ {
		back, ok := endpoint.ParseKind(k.String())
		assert.True(t, ok && back == k)
	}
	_, ok := endpoint.ParseKind("unknown")
	assert.True(t, !ok)
}

// Whatever stands where, the order is: the transport's, then the options in their order, and back.
func TestMiddlewareOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log []string
		mark := func(name string) endpoint.Middleware {
			return func(next endpoint.Handler) endpoint.Handler {
				return func(ctx context.Context, c *endpoint.Call) (any, error) {
					log = append(log, name+c.Side.String()[:1])
					r, err := next(ctx, c)
					log = append(log, name)
					return r, err
				}
			}
		}
		names := rapid.SliceOfN(rapid.StringMatching("[a-z]"), 1, 6).Draw(t, "names")
		var opts []endpoint.Option
		var want []string
		for i, n := range names {
			switch rapid.IntRange(0, 4).Draw(t, "how") {
			case 0:
				opts = append(opts, mark(n))
			case 1:
				opts = append(opts, endpoint.With(mark(n), mark(names[0])))
				want = append(want, n)
				n = names[0]
			case 2:
				opts = append(opts, endpoint.Chain(mark(n)))
			case 3:
				opts = append(opts, endpoint.OnServer(mark(n)), endpoint.OnClient(mark("!")))
			default:
				opts = append(opts, endpoint.Idempotent(), mark(n))
			}
			want = append(want, n)
			_ = i
		}
		m := endpoint.NewMux()
		m.Use(endpoint.OnServer(mark("X")), endpoint.OnServer(mark("Y")))
		if err := m.Serve("svc.op", endpoint.New(add, opts...).With(mark("W"))); err != nil {
			t.Fatal(err)
		}
		if _, err := caller(m)(context.Background(), &addRequest{}); err != nil {
			t.Fatal(err)
		}
		want = append([]string{"X", "Y", "W"}, want...)
		var all []string
		for _, n := range want {
			all = append(all, n+"s")
		}
		for _, n := range slices.Backward(want) {
			all = append(all, n)
		}
		if strings.Join(log, " ") != strings.Join(all, " ") {
			t.Fatalf("got  %v\nwant %v", log, all)
		}
	})
}

func TestUseIsForWhatIsMadeLater(t *testing.T) {
	m := serve(t, endpoint.New(add))
	before := caller(m)
	n := 0
	m.Use(endpoint.OnClient(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			n++
			return next(ctx, c)
		}
	}))
	after := caller(m)
	_, _ = before(t.Context(), &addRequest{})
	assert.Equal(t, n, 0)
	_, _ = after(t.Context(), &addRequest{})
	assert.Equal(t, n, 1)
}
