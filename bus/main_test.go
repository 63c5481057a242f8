package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must not wait for a deadline. Busy machines need room; the calls it is for have a deadline far beyond.
const soon = 3 * time.Second

type (
	AddRequest  struct{ A, B int }
	AddResponse struct{ Sum int }
)

func add(_ context.Context, r *AddRequest) (*AddResponse, error) {
	if r.B == 13 {
		return nil, endpoint.FailedPrecondition.Errorf("%d is unlucky", r.B)
	}
	return &AddResponse{r.A + r.B}, nil
}

func echo(_ context.Context, r []byte) ([]byte, error) { return r, nil }

// adder and echoer are the callers of add and echo.
func adder(b *bus.Bus, subject string, opts ...endpoint.Option) endpoint.Unary[*AddRequest, *AddResponse] {
	return endpoint.Caller[*AddRequest, *AddResponse](b, subject, opts...)
}

func echoer(b *bus.Bus, subject string) endpoint.Unary[[]byte, []byte] {
	return endpoint.Caller[[]byte, []byte](b, subject, endpoint.Codec(codec.Raw))
}

func rawEndpoint(f func(context.Context, []byte) ([]byte, error), opts ...endpoint.Option) *endpoint.Endpoint {
	return endpoint.New(f, append(opts, endpoint.Codec(codec.Raw))...)
}

// quiet is for buses whose errors are the point of the test.
func quiet() bus.Option { return bus.Quiet(slog.New(slog.DiscardHandler), os.Getenv(framesEnv)) }

// reach is connect for a bus that the test ends itself.
func reach(s *embedded.Server, opts ...nats.Option) (*bus.Bus, error) {
	way := nats.InProcessServer(s)
	if bySocket() {
		way = socket(s)
	}
	return bus.Connect("", quiet(), bus.WithNATS(append(opts, way)...))
}

// pair returns two buses on one server, each with a connection of its own and the grants of its role, and no others: the
// first may serve svc.>, the second call and find it. The test fails when they try more.
func pair(t testing.TB, opts ...embedded.Option) (service, caller *bus.Bus, s *embedded.Server) {
	t.Helper()
	s = least(t, func(users map[string]string) {
		users["client"] = both(t, users["client"], users["discovery"])
	}, opts...)
	return as(t, s, "service", "_RI.svc", content(t)), as(t, s, "client", "_RI.cli", content(t)), s
}

// free is pair for what is no role's: other services, a bus that serves and calls.
func free(t testing.TB, opts ...embedded.Option) (service, caller *bus.Bus, s *embedded.Server) {
	t.Helper()
	s = bustest.Server(t, append(opts, unheard())...)
	return connect(t, s, quiet()), connect(t, s, quiet()), s
}

// framesEnv says which calls go in batch frames: none (off), all (always), or those that would in life.
const framesEnv = "POSTBUS_FRAMES"

func eager() bool { return os.Getenv(framesEnv) == "always" }

func serve(t testing.TB, b *bus.Bus, subject string, s endpoint.Servable) {
	t.Helper()
	assert.NoError(t, b.Serve(subject, s))
}

// foreign returns a connection without a bus. It has its replies where services may publish.
func foreign(t testing.TB, s *embedded.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(append([]nats.Option{nats.CustomInboxPrefix("_RI.foreign")}, opts...)...)
	assert.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// respond makes a foreign responder.
func respond(t testing.TB, nc *nats.Conn, subject string, f nats.MsgHandler) {
	t.Helper()
	_, err := nc.Subscribe(subject, f)
	assert.NoError(t, err)
	assert.NoError(t, nc.Flush())
}

// request sends a foreign request with headers, in turn names and values.
func request(t testing.TB, nc *nats.Conn, subject, body string, kv ...string) *nats.Msg {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	for i := 0; i < len(kv); i += 2 {
		m.Header[kv[i]] = append(m.Header[kv[i]], kv[i+1])
	}
	reply, err := nc.RequestMsg(m, 10*time.Second)
	assert.NoError(t, err)
	return reply
}

// failed checks what a failed call says.
func failed(t testing.TB, err error, code endpoint.Code, reason string, outcome endpoint.Outcome) *endpoint.Error {
	t.Helper()
	assert.ErrorIs(t, err, code)
	e, ok := errors.AsType[*endpoint.Error](err)
	assert.True(t, ok, "an *endpoint.Error")
	assert.Equal(t, e.Reason(), reason, e.Error())
	assert.Equal(t, e.Outcome().String(), outcome.String(), e.Error())
	return e
}

// timed runs f and fails when it takes longer than limit.
func timed(t testing.TB, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit {
		t.Fatalf("took %v, at most %v are allowed", took, limit)
	}
}

// own returns the bus's own counters.
func own(b *bus.Bus) endpoint.Stats {
	all := b.Stats()
	return all[len(all)-1]
}

// statsOf returns the counters of what is served on a subject.
func statsOf(t testing.TB, b *bus.Bus, subject string) endpoint.Stats {
	t.Helper()
	for _, s := range b.Stats() {
		if s.Subject == subject {
			return s
		}
	}
	t.Fatalf("no stats of %s", subject)
	return endpoint.Stats{}
}

// gate holds handlers until it is opened.
type gate struct {
	entered chan struct{}
	opened  chan struct{}
	once    sync.Once
}

func newGate(t testing.TB) *gate {
	t.Helper()
	g := &gate{entered: make(chan struct{}, 10_000), opened: make(chan struct{})}
	t.Cleanup(g.open)
	return g
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// pass is a handler's: it says that it is there and waits.
func (g *gate) pass() {
	g.entered <- struct{}{}
	<-g.opened
}

// await waits for n handlers to be there.
func (g *gate) await(t testing.TB, n int) {
	t.Helper()
	for range n {
		select {
		case <-g.entered:
		case <-time.After(10 * time.Second):
			t.Fatal("the handler was not entered")
		}
	}
}

// each runs f n times at once and returns what it returned.
func each[T any](n int, f func(i int) T) []T {
	out := make([]T, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = f(i) })
	}
	wg.Wait()
	return out
}
