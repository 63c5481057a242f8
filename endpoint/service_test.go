package endpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

type addFunc = endpoint.Unary[*addRequest, *addResponse]

func TestServiceContract(t *testing.T) {
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("math", endpoint.Service(contract{Add: add, Primes: count, Total: total, Chat: echo})))
	math := endpoint.Client[contract](m, "math")
	got, err := math.Add(t.Context(), request)
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 3)
	got, err = math.Total(t.Context(), inputs(3))
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 6)
	for _, seq := range []outSeq{math.Primes(t.Context(), &addRequest{A: 2}), math.Chat(t.Context(), inputs(2))} {
		sums, err := collect(seq)
		assert.NoError(t, err)
		assert.Equal(t, sums, []int{1, 2})
	}
	specs := map[string]*endpoint.Spec{}
	for _, e := range endpoint.Service(contract{Add: add, Primes: count}).Endpoints() {
		specs[e.Spec().Name] = e.Spec()
	}
	assert.Equal(t, len(specs), 2, "nil fields are not served")
	a := specs["add"]
	assert.True(t, a.Idempotent && !a.ReadOnly && a.Timeout == 2*time.Second && a.Doc == "adds two numbers")
	assert.True(t, specs["primes"].ReadOnly && specs["primes"].Kind == endpoint.ServerStreamKind)
}

type (
	common struct{ Ping addFunc }
	Shared struct{ Health addFunc }
	names  struct {
		common
		Shared
		HTTPStatus addFunc
		ID         addFunc
		AddAll     addFunc
		X          addFunc
		HTTP2Get   addFunc
		Other      addFunc `rpc:"renamed"`
		Deep       addFunc `rpc:"admin.reset"`
		Skipped    int     `rpc:"-"`
	}
)

func TestServiceNames(t *testing.T) {
	n := names{common{add}, Shared{add}, add, add, add, add, add, add, add, 1}
	var got []string
	for _, e := range endpoint.Service(n).Endpoints() {
		assert.NoError(t, e.Err())
		got = append(got, e.Spec().Name)
	}
	assert.Equal(t, got, []string{"ping", "health", "httpStatus", "id", "addAll", "x", "http2Get", "renamed", "admin.reset"})
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("n", endpoint.Service(n)))
	c := endpoint.Client[names](m, "n")
	for _, f := range []addFunc{c.Ping, c.Health, c.HTTPStatus, c.Deep, c.Other} {
		_, err := f(t.Context(), request)
		assert.NoError(t, err)
	}
}

// faults returns what Serve and a call say of a contract.
func faults[T any](t *testing.T, impl T, words ...string) {
	t.Helper()
	err := endpoint.NewMux().Serve("s", endpoint.Service(impl))
	assert.True(t, err != nil, "Serve must refuse")
	assert.Contains(t, err.Error(), words...)
}

func clientFault(t *testing.T, f addFunc, words ...string) {
	t.Helper()
	assert.True(t, f != nil, "a faulty field must not stay nil")
	_, err := f(t.Context(), request)
	assert.Contains(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotSent).Message, words...)
}

func TestServiceFaults(t *testing.T) {
	m := endpoint.NewMux()
	type unexported struct {
		Add addFunc
		sub addFunc
	}
	faults(t, unexported{Add: add}, "sub", "not exported")
	clientFault(t, endpoint.Client[unexported](m, "s").Add, "sub", "not exported")
	_ = unexported{}.sub

	type foreign struct {
		Add   addFunc
		Count int
		F     func()
	}
	faults(t, foreign{Add: add}, "Count", "F of")
	clientFault(t, endpoint.Client[foreign](m, "s").Add, "Count", "F of")

	type word struct {
		Add addFunc `rpc:"add,idempotnet"`
		Sub addFunc
	}
	faults(t, word{Add: add}, "Add", "idempotnet")
	clientFault(t, endpoint.Client[word](m, "s").Add, "idempotnet")
	clientFault(t, endpoint.Client[word](m, "s").Sub, "idempotnet")

	type value struct {
		A addFunc `rpc:",idempotent=no"`
		B addFunc `rpc:",timeout"`
		C addFunc `rpc:",timeout=soon"`
		D addFunc `rpc:",timeout=-1s"`
		E addFunc `rpc:",idle=1s"`
		F addFunc `rpc:"a b"`
	}
	faults(t, value{A: add, D: add, E: add}, "idempotent=no", `"timeout"`, "soon", "field D: option Timeout: -1s", "field E: option IdleTimeout", "a b")
	clientFault(t, endpoint.Client[value](m, "s").D, "field D: option Timeout: -1s")
	clientFault(t, endpoint.Client[value](m, "s").F, "a b")

	type several struct {
		Add addFunc `rpc:"a b,idempotnet,timeout=soon,readonly=no"`
	}
	faults(t, several{Add: add}, "no subject token", `unknown word "idempotnet"`, `invalid duration "soon"`, `unknown word "readonly=no"`)
	clientFault(t, endpoint.Client[several](m, "s").Add, "no subject token", "idempotnet", "soon", "readonly=no")

	type twice struct {
		Add addFunc
		Sum addFunc `rpc:"add"`
	}
	faults(t, twice{Add: add, Sum: add}, "both named")
	clientFault(t, endpoint.Client[twice](m, "s").Sum, "both named")

	faults(t, contract{}, "no function to serve")
	faults(t, 7, "not a struct")
	faults(t, &contract{Add: add}, "not a struct")
	faults[any](t, nil, "not a struct")
	assert.Equal(t, endpoint.Client[int](m, "s"), 0)
	clientFault(t, endpoint.Client[contract](nil, "s").Add, "transport is nil")
	clientFault(t, endpoint.Client[contract](m, "a b").Add, "white space")
}

type misguided struct {
	Add, Sub addFunc
}

func (misguided) Options(field string) []endpoint.Option {
	if field == "Add" {
		return nil
	}
	headless := endpoint.With(func(endpoint.Handler) endpoint.Handler { return nil })
	return []endpoint.Option{endpoint.Concurrency(-7), nil, endpoint.Errors[error]("x", endpoint.Aborted), headless}
}

// A fault of a contract says which field has it; one of the options for all says nothing of a field.
func TestServiceFaultsNameTheField(t *testing.T) {
	err := endpoint.NewMux().Serve("s", endpoint.Service(misguided{add, add}, endpoint.Backlog(-1, 0)))
	assert.Contains(t, err.Error(), "field Sub: option Concurrency: -7", "field Sub: a nil option", "field Sub: option Errors", "field Sub: a middleware returned a nil handler")
	for line := range strings.Lines(err.Error()) {
		assert.True(t, !strings.Contains(line, "field Add"), line)
		assert.True(t, strings.Contains(line, "field Sub") || strings.Contains(line, "Backlog"), line)
	}
	clientFault(t, endpoint.Client[misguided](endpoint.NewMux(), "s").Sub, `caller of "s.sub": field Sub: a nil option`, "field Sub: option Errors")
	type foreign struct {
		Go endpoint.Unary[*addRequest, chan int]
	}
	_, err = endpoint.Client[foreign](endpoint.NewMux(), "s").Go(t.Context(), request)
	assert.Contains(t, err.Error(), "field Go: ", "chan int")
}

type optioned struct {
	Add    addFunc
	Stream endpoint.ServerStream[*addRequest, *addResponse]
}

func (optioned) Options(field string) []endpoint.Option {
	if field == "Add" {
		return append(declared(), endpoint.Doc("of the field"), endpoint.Concurrency(7), endpoint.Idempotent())
	}
	return []endpoint.Option{endpoint.IdleTimeout(time.Second)}
}

func TestServiceOptions(t *testing.T) {
	var order []string
	mark := func(name string) endpoint.Middleware {
		return func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				order = append(order, name)
				return next(ctx, c)
			}
		}
	}
	impl := optioned{
		Add:    func(context.Context, *addRequest) (*addResponse, error) { return nil, errSoldOut },
		Stream: count,
	}
	s := endpoint.Service(impl, mark("outer"), endpoint.Doc("of the service"), endpoint.IdleTimeout(time.Minute))
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("o", s))
	add, stream := s.Endpoints()[0].Spec(), s.Endpoints()[1].Spec()
	assert.True(t, add.Doc == "of the field" && add.Concurrency == 7 && add.Idempotent && add.IdleTimeout == 0)
	assert.True(t, stream.Doc == "of the service" && stream.IdleTimeout == time.Second)

	c := endpoint.Client[optioned](m, "o", mark("client"))
	_, err := c.Add(t.Context(), request)
	assert.True(t, errors.Is(err, errSoldOut), "both sides read Options")
	assert.Equal(t, order, []string{"client", "outer"})

	clientFault(t, endpoint.Client[optioned](m, "o", endpoint.Quorum(1)).Add, "Quorum applies to no field")
	clientFault(t, endpoint.Client[optioned](m, "o", endpoint.Doc("x")).Add, "Doc does not apply")
	type single struct{ Add addFunc }
	err = m.Serve("x", endpoint.Service(single{Add: impl.Add}, endpoint.IdleTimeout(1)))
	assert.Contains(t, err.Error(), "IdleTimeout applies to no field")
}

type (
	stock  struct{ Count addFunc }
	Prices struct{ Price addFunc }
	plain  struct{ Echo addFunc }
)

func (stock) Options(field string) []endpoint.Option {
	return []endpoint.Option{endpoint.Doc("stock." + field)}
}

func (*Prices) Options(field string) []endpoint.Option {
	return []endpoint.Option{endpoint.Doc("prices." + field)}
}

// Two embedded structs that have Options leave the outer one without: the method is ambiguous.
type (
	shop struct {
		stock
		Prices
		plain
		Open addFunc
	}
	mall struct {
		shop
		Park addFunc
	}
	chain struct { // one promoted method is the outer struct's
		stock
		plain
		Open addFunc
	}
	strict struct{ shop }
)

func (strict) Options(field string) []endpoint.Option {
	return []endpoint.Option{endpoint.Doc("strict." + field)}
}

func TestOptionsOfEmbeddedStructs(t *testing.T) {
	s := shop{stock{add}, Prices{add}, plain{add}, add}
	docs := func(c endpoint.Servable) []string {
		var docs []string
		for _, e := range c.Endpoints() {
			assert.NoError(t, e.Err())
			docs = append(docs, e.Spec().Doc)
		}
		return docs
	}
	assert.Equal(t, docs(endpoint.Service(s)), []string{"stock.Count", "prices.Price", "", ""})
	assert.Equal(t, docs(endpoint.Service(mall{s, add})), []string{"stock.Count", "prices.Price", "", "", ""})
	assert.Equal(t, docs(endpoint.Service(chain{stock{add}, plain{add}, add})), []string{"stock.Count", "stock.Echo", "stock.Open"})
	assert.Equal(t, docs(endpoint.Service(strict{s})), []string{"strict.Count", "strict.Price", "strict.Echo", "strict.Open"})
	var specs []*endpoint.Spec
	look := endpoint.With(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			specs = append(specs, c.Spec)
			return next(ctx, c)
		}
	})
	c := endpoint.Client[both](endpoint.NewMux(), "b", look)
	_, _ = c.Get(t.Context(), request)
	_, _ = c.Put(t.Context(), request)
	assert.True(t, specs[0].Idempotent && !specs[1].Idempotent && specs[1].Timeout == time.Minute, "clients read them, too")
}

type (
	getter struct{ Get addFunc }
	putter struct{ Put addFunc }
	both   struct {
		getter
		putter
	}
)

func (getter) Options(string) []endpoint.Option { return []endpoint.Option{endpoint.Idempotent()} }
func (putter) Options(string) []endpoint.Option {
	return []endpoint.Option{endpoint.Timeout(time.Minute)}
}
