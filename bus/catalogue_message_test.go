package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// More rows of "Every known way to fail" in docs/semantics.md: about handlers and what is in the messages.

type unmarshalable struct{ Why string }

func (u unmarshalable) MarshalJSON() ([]byte, error) {
	if u.Why == "panic" {
		panic("in MarshalJSON")
	}
	return nil, errors.New(u.Why)
}

func TestRow13HandlerFailures(t *testing.T) {
	service, caller, _ := pair(t)
	type Floats struct{ X float64 }
	serve(t, service, "svc.panic", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) { panic("secret") }))
	serve(t, service, "svc.goexit", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) {
		runtime.Goexit()
		return nil, nil
	}))
	serve(t, service, "svc.nan", endpoint.New(func(context.Context, *AddRequest) (*Floats, error) { return &Floats{math.NaN()}, nil }))
	serve(t, service, "svc.marshal", endpoint.New(func(context.Context, *AddRequest) (*unmarshalable, error) {
		return &unmarshalable{"secret"}, nil
	}))
	serve(t, service, "svc.marshalpanic", endpoint.New(func(context.Context, *AddRequest) (*unmarshalable, error) {
		return &unmarshalable{"panic"}, nil
	}))
	serve(t, service, "svc.nil", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) { return nil, nil }))
	serve(t, service, "svc.foreign", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) { return nil, errors.New("secret") }))
	serve(t, service, "svc.middleware", endpoint.New(add, endpoint.With(func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) { panic("secret") }
	})))
	for _, c := range []struct {
		name, reason string
		code         endpoint.Code
		outcome      endpoint.Outcome
	}{
		{"panic", endpoint.ReasonPanic, endpoint.Internal, endpoint.Executed},
		{"goexit", endpoint.ReasonPanic, endpoint.Internal, endpoint.Executed},
		{"nan", endpoint.ReasonEncode, endpoint.Internal, endpoint.Executed},
		{"marshal", endpoint.ReasonEncode, endpoint.Internal, endpoint.Executed},
		{"marshalpanic", endpoint.ReasonPanic, endpoint.Internal, endpoint.Executed},
		{"nil", "", endpoint.Internal, endpoint.Executed},
		{"foreign", "", endpoint.Unknown, endpoint.Executed},
		{"middleware", endpoint.ReasonPanic, endpoint.Internal, endpoint.NotExecuted},
	} {
		t.Run(c.name, func(t *testing.T) {
			timed(t, soon, func() {
				_, err := adder(caller, "svc."+c.name)(t.Context(), &AddRequest{1, 2})
				e := failed(t, err, c.code, c.reason, c.outcome)
				assert.True(t, !strings.Contains(e.Error(), "secret"), "the cause stays at the service: "+e.Error())
			})
		})
	}
	serve(t, service, "svc.add", endpoint.New(add))
	resp, err := adder(caller, "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, resp.Sum, 3)
}

func TestRow13ThousandPanics(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.panic", endpoint.New(func(_ context.Context, r *AddRequest) (*AddResponse, error) {
		if r.A%2 == 0 {
			runtime.Goexit()
		}
		panic(r.A)
	}))
	serve(t, service, "svc.add", endpoint.New(add))
	panics, sum := adder(caller, "svc.panic"), adder(caller, "svc.add")
	before := runtime.NumGoroutine()
	timed(t, 30*time.Second, func() {
		errs := each(1000, func(i int) error {
			_, err := panics(t.Context(), &AddRequest{A: i})
			if _, e := sum(t.Context(), &AddRequest{i, 1}); e != nil {
				return e
			}
			return err
		})
		for _, err := range errs {
			failed(t, err, endpoint.Internal, endpoint.ReasonPanic, endpoint.Executed)
		}
	})
	assert.Eventually(t, func() bool { // a call is counted after its reply
		s := statsOf(t, service, "svc.panic")
		return s.Calls == 1000 && s.Errors[endpoint.Internal] == 1000 && s.InFlight+s.Waiting == 0
	})
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+150 }, "goroutines end, but for the parked ones")
}

func TestRow13UnknownContentType(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet(), bus.WithCodecs(cbor.CBOR))
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	}))
	m := request(t, foreign(t, s), "svc.add", "<a/>", "Content-Type", "application/xml")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument")
	assert.Equal(t, m.Header.Get("Rpc-Reason"), "media_type")
	assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed")
	assert.Equal(t, m.Header.Get("Nats-Service-Error-Code"), "400")
	assert.Contains(t, string(m.Data), "application/xml", "application/json", "application/cbor")
	_, err := echoer(service, "svc.add")(t.Context(), []byte("{}"))
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonMediaType, endpoint.NotExecuted)
	assert.Equal(t, ran.Load(), int32(0))
}

// overlap is a server whose stream covers svc.>.
func overlap(t *testing.T) (service, caller *bus.Bus) {
	t.Helper()
	service, caller, s := pair(t, embedded.WithJetStream(""))
	js, err := foreign(t, s).JetStream()
	assert.NoError(t, err)
	_, err = js.AddStream(&nats.StreamConfig{Name: "ALL", Subjects: []string{"svc.>"}, Storage: nats.MemoryStorage})
	assert.NoError(t, err)
	return service, caller
}

func TestRow15JetStreamOverlap(t *testing.T) {
	service, caller := overlap(t)
	g := make(chan struct{})
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		if r.A == 100 {
			<-g
		}
		return add(ctx, r)
	}))
	sum := adder(caller, "svc.add")
	for i := range 20 {
		resp, err := sum(t.Context(), &AddRequest{i, 1})
		assert.NoError(t, err, "the real reply wins")
		assert.Equal(t, resp.Sum, i+1)
	}
	go func() {
		time.Sleep(50 * time.Millisecond) // the acknowledgement comes long before
		close(g)
	}()
	resp, err := sum(t.Context(), &AddRequest{100, 1})
	assert.NoError(t, err, "also when it is slow")
	assert.Equal(t, resp.Sum, 101)

	start := time.Now()
	_, err = adder(caller, "svc.nobody")(t.Context(), &AddRequest{1, 2})
	took := time.Since(start)
	e := failed(t, err, endpoint.FailedPrecondition, endpoint.ReasonJetStreamOverlap, endpoint.MaybeExecuted)
	assert.Contains(t, e.Message, "svc.nobody", "ALL")
	assert.True(t, took > 200*time.Millisecond && took < 1500*time.Millisecond, "after 250 ms: "+took.String())
}

func TestRow15OverlapKeepsDeadline(t *testing.T) {
	_, caller := overlap(t)
	nobody := adder(caller, "svc.nobody", endpoint.Timeout(100*time.Millisecond))
	best := time.Hour
	for range 5 {
		start := time.Now()
		_, err := nobody(t.Context(), &AddRequest{1, 2})
		best = min(best, time.Since(start))
		assert.True(t, err != nil, "fails")
	}
	assert.True(t, best < 200*time.Millisecond, "by the deadline: "+best.String())
}

func TestRow15AckIsMeant(t *testing.T) {
	_, caller := overlap(t)
	type PubAck struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
	}
	ack, err := endpoint.Caller[*AddRequest, *PubAck](caller, "svc.publish")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, ack.Stream, "ALL")
}

// A response type that says nothing about the reply is no reason to take a stream's word for a service's.
func TestRow15AckIsNobodysReply(t *testing.T) {
	service, caller := overlap(t)
	payload := func(subject string) ([]byte, error) {
		p, err := endpoint.Caller[*codec.Payload, *codec.Payload](caller, subject)(t.Context(), &codec.Payload{MediaType: "application/octet-stream", Data: []byte("x")})
		if err != nil {
			return nil, err
		}
		return p.Data, nil
	}
	raw := func(subject string) ([]byte, error) { return echoer(caller, subject)(t.Context(), []byte("x")) }
	object := func(subject string) ([]byte, error) {
		m, err := endpoint.Caller[map[string]any, map[string]any](caller, subject)(t.Context(), map[string]any{"A": 1, "B": 2})
		return fmt.Append(nil, m["Sum"]), err
	}
	serve(t, service, "svc.echo", rawEndpoint(func(ctx context.Context, r []byte) ([]byte, error) {
		time.Sleep(20 * time.Millisecond) // the acknowledgement comes before
		return echo(ctx, r)
	}))
	serve(t, service, "svc.add", endpoint.New(add))
	for name, call := range map[string]func(subject string) ([]byte, error){"payload": payload, "bytes": raw, "map": object} {
		_, err := call("svc.nobody")
		failed(t, err, endpoint.FailedPrecondition, endpoint.ReasonJetStreamOverlap, endpoint.MaybeExecuted)
		subject, want := "svc.echo", "x"
		if name == "map" {
			subject, want = "svc.add", "3"
		}
		got, err := call(subject)
		assert.NoError(t, err, name)
		assert.Equal(t, string(got), want, name)
	}
}

func TestRow16StatusHeader(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	respond(t, nc, "svc.status", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}}})
	})
	respond(t, nc, "svc.both", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}, "Nats-Subject": {"x"}, "X-Own": {"1"}}, Data: []byte("body")})
	})
	for subject, want := range map[string]string{"svc.status": "", "svc.both": "body"} {
		got, err := echoer(caller, subject)(t.Context(), []byte("x"))
		assert.NoError(t, err, subject)
		assert.Equal(t, string(got), want)
	}
}

func TestRow17DuplicateReplies(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	respond(t, nc, "svc.twice", func(m *nats.Msg) {
		for _, s := range []string{"1", "2", "3", "4", "5", "6", "7"} {
			_ = m.Respond([]byte(s))
		}
	})
	call := echoer(caller, "svc.twice")
	for range 10 {
		got, err := call(t.Context(), nil)
		assert.NoError(t, err)
		assert.Equal(t, string(got), "1")
	}
	assert.Eventually(t, func() bool { return own(caller).Late == 60 }, "six of seven are late")
	assert.Equal(t, caller.Slots(), 0)
}

func TestRow18ExpiredInBacklog(t *testing.T) {
	service, caller, s := pair(t)
	g := newGate(t)
	var mu sync.Mutex
	var ran []string
	serve(t, service, "svc.slow", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		mu.Lock()
		ran = append(ran, string(r))
		mu.Unlock()
		g.pass()
		return r, nil
	}, endpoint.Concurrency(1), endpoint.Backlog(10, 30*time.Second)))
	call := echoer(caller, "svc.slow")
	first, foreignReply := make(chan error, 1), make(chan *nats.Msg, 1)
	go func() {
		_, err := call(context.Background(), []byte("first"))
		first <- err
	}()
	g.await(t, 1)
	nc := foreign(t, s)
	go func() {
		m, err := nc.RequestMsg(&nats.Msg{Subject: "svc.slow", Header: nats.Header{"Rpc-Timeout": {"30m"}}, Data: []byte("foreign")}, 10*time.Second)
		if err != nil {
			m = &nats.Msg{}
		}
		foreignReply <- m
	}()
	timed(t, soon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := call(ctx, []byte("second"))
		failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").Waiting == 2 })
	time.Sleep(320 * time.Millisecond) // from receipt on, both have less than that
	g.open()
	assert.NoError(t, <-first)
	m := <-foreignReply
	assert.Equal(t, m.Header.Get("Rpc-Code"), "deadline_exceeded")
	assert.Equal(t, m.Header.Get("Rpc-Reason"), "expired")
	assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed")
	assert.Equal(t, m.Header.Get("Nats-Service-Error-Code"), "504")
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.slow").Expired == 2 })
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, ran, []string{"first"})
	assert.Eventually(t, func() bool { return own(caller).Late == 1 }, "the refusal of the second found no one")
}

func TestErrorReplyIsCompleteADR32(t *testing.T) {
	service, _, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	m := request(t, foreign(t, s), "svc.add", `{"A":1,"B":13}`)
	assert.Equal(t, m.Header.Get("Nats-Service-Error"), "13 is unlucky")
	assert.Equal(t, m.Header.Get("Nats-Service-Error-Code"), "400")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "failed_precondition")
	assert.Equal(t, m.Header.Get("Content-Type"), "application/json")
	var body struct{ Code, Message string }
	assert.NoError(t, json.Unmarshal(m.Data, &body))
	assert.Equal(t, body.Code+": "+body.Message, "failed_precondition: 13 is unlucky")
	m = request(t, foreign(t, s), "svc.add", `{"A":1,"B":2}`)
	assert.Equal(t, len(m.Header), 0)
}
