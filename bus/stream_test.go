package bus_test

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

type (
	inSeq  = iter.Seq2[*AddRequest, error]
	outSeq = iter.Seq2[*AddResponse, error]
)

// count answers with the numbers up to A, and fails then if B says so.
func count(_ context.Context, r *AddRequest) outSeq {
	return func(yield func(*AddResponse, error) bool) {
		for i := range r.A {
			if !yield(&AddResponse{i + 1}, nil) {
				return
			}
		}
		if r.B == 13 {
			yield(nil, endpoint.FailedPrecondition.Errorf("%d is unlucky", r.B))
		}
	}
}

// total adds up what comes.
func total(_ context.Context, in inSeq) (*AddResponse, error) {
	sum := 0
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		sum += r.A
	}
	return &AddResponse{sum}, nil
}

// double answers each number with its double.
func double(_ context.Context, in inSeq) outSeq {
	return func(yield func(*AddResponse, error) bool) {
		for r, err := range in {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&AddResponse{2 * r.A}, nil) {
				return
			}
		}
	}
}

func counter(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.ServerStream[*AddRequest, *AddResponse] {
	return endpoint.ServerStreamCaller[*AddRequest, *AddResponse](b, subject, opts...)
}

func totaler(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.ClientStream[*AddRequest, *AddResponse] {
	return endpoint.ClientStreamCaller[*AddRequest, *AddResponse](b, subject, opts...)
}

func doubler(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.BidiStream[*AddRequest, *AddResponse] {
	return endpoint.BidiStreamCaller[*AddRequest, *AddResponse](b, subject, opts...)
}

// numbers is an input of 1 to n.
func numbers(n int) inSeq {
	return func(yield func(*AddRequest, error) bool) {
		for i := range n {
			if !yield(&AddRequest{A: i + 1}, nil) {
				return
			}
		}
	}
}

// collect ranges over a stream.
func collect(seq outSeq) (sums []int, err error) {
	for v, e := range seq {
		if e != nil {
			return sums, e
		}
		sums = append(sums, v.Sum)
	}
	return sums, nil
}

// serveStreams serves the three kinds.
func serveStreams(t testing.TB, b *bus.Bus, opts ...endpoint.Option) {
	t.Helper()
	serve(t, b, "svc.count", endpoint.NewServerStream(count, opts...))
	serve(t, b, "svc.total", endpoint.NewClientStream(total, opts...))
	serve(t, b, "svc.double", endpoint.NewBidiStream(double, opts...))
}

// nothingLeft waits until no stream is left behind at either end.
func nothingLeft(t testing.TB, service, caller *bus.Bus) {
	t.Helper()
	assert.Eventually(t, func() bool { return caller.Slots()+caller.Tombs()+service.Streams() == 0 }, "nothing stays behind")
	for _, s := range service.Stats() {
		assert.Eventually(t, func() bool { return s.Subject == "" || statsOf(t, service, s.Subject).InFlight == 0 })
	}
}

// upTo is 1 to n.
func upTo(n, times int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = times * (i + 1)
	}
	return out
}

func TestStreams(t *testing.T) {
	service, caller, _ := pair(t)
	serveStreams(t, service)
	for _, n := range []int{0, 1, 31, 32, 33, 64, 65, 1000} {
		sums, err := collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: n}))
		assert.NoError(t, err)
		assert.Equal(t, len(sums), n)
		assert.Equal(t, append([]int{}, sums...), upTo(n, 1))
		got, err := totaler(caller, "svc.total")(t.Context(), numbers(n))
		assert.NoError(t, err)
		assert.Equal(t, got.Sum, n*(n+1)/2)
		sums, err = collect(doubler(caller, "svc.double")(t.Context(), numbers(n)))
		assert.NoError(t, err)
		assert.Equal(t, append([]int{}, sums...), upTo(n, 2))
	}
	nothingLeft(t, service, caller)
	assert.Equal(t, own(caller).Malformed+own(service).Malformed, uint64(0))
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.count").Calls == 8 })
}

func TestStreamThatFails(t *testing.T) {
	service, caller, _ := pair(t)
	serveStreams(t, service)
	sums, err := collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: 3, B: 13}))
	assert.Equal(t, sums, []int{1, 2, 3})
	e := failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
	assert.Equal(t, e.Message, "13 is unlucky")
	assert.True(t, e.Remote())
	_, err = collect(counter(caller, "svc.none")(t.Context(), &AddRequest{}))
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	serve(t, service, "svc.panic", endpoint.NewServerStream(func(context.Context, *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			yield(&AddResponse{1}, nil)
			panic("boom")
		}
	}))
	sums, err = collect(counter(caller, "svc.panic")(t.Context(), &AddRequest{}))
	assert.Equal(t, sums, []int{1})
	failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
	serve(t, service, "svc.exit", endpoint.NewServerStream(func(context.Context, *AddRequest) outSeq {
		runtime.Goexit()
		return nil
	}))
	_, err = collect(counter(caller, "svc.exit")(t.Context(), &AddRequest{}))
	failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
	nothingLeft(t, service, caller)
}

// endless yields until its context ends, and says why that was.
func endless(causes chan<- cause) func(context.Context, *AddRequest) outSeq {
	return func(ctx context.Context, _ *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			for i := 0; yield(&AddResponse{i}, nil); i++ {
			}
			<-ctx.Done()
			causes <- cause{context.Cause(ctx), time.Now()}
		}
	}
}

// Who leaves the loop, by whatever way, ends the handler; a panic stays the consumer's.
func TestLeavingTheLoop(t *testing.T) {
	service, caller, _ := pair(t)
	causes := make(chan cause, 10)
	serve(t, service, "svc.endless", endpoint.NewServerStream(endless(causes)))
	tail := counter(caller, "svc.endless")
	for name, leave := range map[string]func(){
		"break": func() {
			for v, err := range tail(t.Context(), &AddRequest{}) {
				assert.NoError(t, err)
				if v.Sum == 200 {
					break
				}
			}
		},
		"panic": func() {
			defer func() { assert.Equal(t, recover(), any("mine")) }()
			for range tail(t.Context(), &AddRequest{}) {
				panic("mine")
			}
		},
		"goexit": func() {
			gone := make(chan bool)
			go func() {
				defer close(gone)
				for range tail(context.Background(), &AddRequest{}) {
					runtime.Goexit()
				}
			}()
			<-gone
		},
		"pull": func() {
			next, stop := iter.Pull2(tail(t.Context(), &AddRequest{}))
			_, err, ok := next()
			assert.True(t, ok && err == nil)
			stop()
		},
		"cancel": func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for _, err := range tail(ctx, &AddRequest{}) {
				cancel()
				if err != nil {
					failed(t, err, endpoint.Canceled, "", endpoint.MaybeExecuted)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			leave()
			timed(t, soon, func() { assert.ErrorIs(t, (<-causes).err, endpoint.Canceled) })
			nothingLeft(t, service, caller)
		})
	}
}

func TestStreamKindsMustMatch(t *testing.T) {
	service, caller, s := pair(t)
	serveStreams(t, service)
	serve(t, service, "svc.add", endpoint.New(add))
	_, err := collect(counter(caller, "svc.add")(t.Context(), &AddRequest{}))
	failed(t, err, endpoint.Unimplemented, "", endpoint.NotExecuted)
	_, err = collect(counter(caller, "svc.double")(t.Context(), &AddRequest{}))
	failed(t, err, endpoint.Unimplemented, "", endpoint.NotExecuted)
	_, err = adder(caller, "svc.count")(t.Context(), &AddRequest{})
	failed(t, err, endpoint.Unimplemented, "", endpoint.NotExecuted)
	m := request(t, foreign(t, s), "svc.total", "")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "unimplemented", "a client stream has no plain callers")
	respond(t, foreign(t, s), "svc.foreign", func(m *nats.Msg) { _ = m.Respond([]byte(`{"Sum":1}`)) })
	_, err = collect(counter(caller, "svc.foreign")(t.Context(), &AddRequest{}))
	failed(t, err, endpoint.Unimplemented, endpoint.ReasonProtocol, endpoint.Executed)
	nothingLeft(t, service, caller)
}

func TestStreamMetadata(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.chat", endpoint.NewServerStream(func(ctx context.Context, r *AddRequest) outSeq {
		return func(yield func(*AddResponse, error) bool) {
			c := endpoint.FromContext(ctx)
			c.Reply.Set("Opened", c.Header.Get("Who"))
			if r.A == 0 || yield(&AddResponse{}, nil) {
				c.Trailer.Set("Closed", "yes")
			}
		}
	}))
	for n := range 2 {
		ctx, report := endpoint.Observe(endpoint.WithHeader(t.Context(), "who", "me"))
		_, err := collect(counter(caller, "svc.chat")(ctx, &AddRequest{A: n}))
		assert.NoError(t, err)
		assert.Equal(t, report.Reply.Get("opened"), "me")
		assert.Equal(t, report.Trailer.Get("closed"), "yes")
		assert.Equal(t, report.Instance, service.ID())
	}
}

// An input that fails ends the call with its own words, and never looks complete to the handler.
func TestBrokenInput(t *testing.T) {
	service, caller, _ := pair(t)
	ends := make(chan error, 10)
	serve(t, service, "svc.spy", endpoint.NewClientStream(func(_ context.Context, in inSeq) (*AddResponse, error) {
		var end error
		for _, err := range in {
			end = err
		}
		ends <- end
		return &AddResponse{}, nil
	}))
	mine := errors.New("mine")
	for name, broken := range map[string]error{"an error": mine, "an *Error": endpoint.Aborted.Wrap(mine, "x")} {
		_, err := totaler(caller, "svc.spy")(t.Context(), func(yield func(*AddRequest, error) bool) {
			if yield(&AddRequest{A: 1}, nil) {
				yield(nil, broken)
			}
		})
		assert.ErrorIs(t, err, mine, name)
		assert.Equal(t, endpoint.CodeOf(<-ends), endpoint.Canceled, name)
	}
	nothingLeft(t, service, caller)
}

// A client that knows no streams gets items and the end, and what is too much for it ends in an error.
func TestPlainCallers(t *testing.T) {
	service, _, s := pair(t)
	serveStreams(t, service)
	nc := foreign(t, s)
	all := func(body string) (items []*nats.Msg, end *nats.Msg) {
		prefix, next := inbox(t, nc)
		assert.NoError(t, nc.PublishRequest("svc.count", prefix+"x", []byte(body)))
		for {
			m := next()
			assert.Equal(t, m.Reply, "")
			if len(m.Data) == 0 {
				return items, m
			}
			items = append(items, m)
		}
	}
	items, end := all(`{"A":3}`)
	assert.Equal(t, len(items), 3)
	assert.Equal(t, string(items[2].Data)+items[2].Header.Get("Rpc-Seq"), `{"Sum":3}3`)
	assert.Equal(t, end.Header, nats.Header{"Rpc-End": {"3"}})
	items, end = all(`{"A":1024}`)
	assert.Equal(t, len(items), 1024)
	assert.Equal(t, end.Header.Get("Rpc-Code"), "")
	items, end = all(`{"A":5000}`)
	assert.Equal(t, len(items), 1024)
	assert.Equal(t, end.Header.Get("Rpc-Code")+end.Header.Get("Rpc-End"), "resource_exhausted1024")
	items, end = all(`{"A":2,"B":13}`)
	assert.Equal(t, len(items), 2)
	assert.Equal(t, end.Header.Get("Nats-Service-Error"), "13 is unlucky")
}

// Who listens on a bus's own connection to what its streams use, gets a copy of each item, and takes none away.
func TestStreamAndWhoListensBeside(t *testing.T) {
	s := bustest.Server(t)
	service := connect(t, s, quiet())
	caller, err := bus.Connect(s.URL(), quiet())
	assert.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, caller.Close()) })
	serve(t, service, "svc.count", endpoint.NewServerStream(count))
	const n = 10_000
	var heard atomic.Int64
	_, err = caller.Conn().Subscribe("_INBOX.*.*", func(m *nats.Msg) {
		if m.Header.Get(wire.Seq) != "" {
			heard.Add(1)
		}
	})
	assert.NoError(t, err)
	got := 0
	for r, err := range endpoint.ServerStreamCaller[*AddRequest, *AddResponse](caller, "svc.count")(t.Context(), &AddRequest{A: n}) {
		assert.NoError(t, err)
		got++
		assert.Equal(t, r.Sum, got)
	}
	assert.Equal(t, got, n)
	assert.Eventually(t, func() bool { return heard.Load() == n })
}
