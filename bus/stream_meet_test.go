package bus_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// How streams get on with the rest of the bus: accounts, direct calls, admission, middleware, permissions, crowds.

func TestStreamsAcrossAccounts(t *testing.T) {
	s := accounts(t, exported(t), "response_type: stream", "share: false")
	service := as(t, s, "service", "_RI.svc", content(t))
	serveStreams(t, service)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, opts := range [][]bus.Option{nil, {bus.WithHeaderMetadata()}} {
		client := as(t, s, "streamer", "_RI.cli", append(opts, content(t))...)
		sums, err := collect(doubler(client, "svc.double")(ctx, numbers(1000)))
		assert.NoError(t, err)
		assert.Equal(t, sums, upTo(1000, 2))
		sums, err = collect(counter(client, "svc.count")(ctx, &AddRequest{A: 1000, B: 13}))
		assert.Equal(t, len(sums), 1000)
		failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
		for v := range counter(client, "svc.count")(ctx, &AddRequest{A: 1_000_000}) {
			if v.Sum == 100 {
				break
			}
		}
		nothingLeft(t, service, client)
	}
}

// Without the grant for what the import hands out a caller can't hold a stream, and is told so when it first tries.
func TestStreamAcrossAccountsWithoutTheGrant(t *testing.T) {
	s := accounts(t, exported(t), "response_type: stream", "share: false")
	service, caller := as(t, s, "service", "_RI.svc"), as(t, s, "client", "_RI.cli")
	serveStreams(t, service)
	sums, err := collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: 10}))
	assert.NoError(t, err, "what needs no credit goes")
	assert.Equal(t, sums, upTo(10, 1))
	timed(t, soon, func() {
		_, err = collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: 1000}))
		failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	})
	assert.NoError(t, service.Close()) // nobody can tell it that its caller is gone
}

// imported is a net with a service's account and a client's, which imports it.
func imported(t *testing.T, export, grants string, opts ...bus.Option) (service, caller *bus.Bus) {
	t.Helper()
	n := bustest.NewNet(t, embedded.WithConfig(`accounts {
		SVC { users: [ { user: service, password: service, `+grants+` } ], exports: [ { service: "svc.>", `+export+` } ] }
		CLI { users: [ { user: client, password: client } ], imports: [ { service: { account: SVC, subject: "svc.>" } } ] }
	}`))
	user := func(name string) bus.Option { return bus.WithNATS(nats.UserInfo(name, name)) }
	return n.Connect("service", quiet(), user("service")), n.Connect("caller", append(opts, quiet(), user("client"))...)
}

// An import that lets one reply through lets the open through, and the caller knows an interval later.
func TestImportThatIsNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service, caller := imported(t, "response_type: singleton", "")
		causes := make(chan cause, 1)
		serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
		takes(t, heartbeat, func() {
			_, err := collect(counter(caller, "svc.tail")(t.Context(), &AddRequest{A: 3}))
			failed(t, err, endpoint.Unavailable, endpoint.ReasonImportNotStream, endpoint.MaybeExecuted)
		})
		<-causes
	})
}

// An import that forgets the way back sooner than the sides beat breaks a quiet stream: both ends know, if late.
func TestImportThatForgetsTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service, caller := imported(t, `response_type: stream, threshold: "6s"`, "")
		causes := make(chan cause, 1)
		serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes)))
		start := time.Now()
		_, err := collect(counter(caller, "svc.tail")(t.Context(), &AddRequest{A: 3}))
		failed(t, err, endpoint.Unavailable, endpoint.ReasonInstanceSilent, endpoint.MaybeExecuted)
		took := time.Since(start) // a beat gets through now and then: the broker looks for what to forget when it likes
		assert.True(t, took >= 3*heartbeat && took <= 80*heartbeat, took.String())
		<-causes
	})
}

// A stream that carries nothing outlives what the broker's notes of replies last: the mapping of an import, and the permission
// to reply.
func TestQuietStreamsKeepTheirWayBack(t *testing.T) {
	const expires = 20 * time.Second
	for name, c := range map[string]struct {
		export, grants string
		heartbeat      time.Duration
	}{
		"an import":             {`response_type: stream, threshold: "60s"`, "", heartbeat},
		"an impatient import":   {`response_type: stream, threshold: "8s"`, "", 5 * time.Second},
		"allow_responses":       {"response_type: stream", `permissions: { subscribe: ">", allow_responses: { max: -1, expires: "20s" } }`, heartbeat},
		"short allow_responses": {"response_type: stream", `permissions: { subscribe: ">", allow_responses: { max: -1, expires: "8s" } }`, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service, caller := imported(t, c.export, c.grants, bus.WithHeartbeat(c.heartbeat))
				serve(t, service, "svc.late", endpoint.NewBidiStream(func(ctx context.Context, in inSeq) outSeq {
					return func(yield func(*AddResponse, error) bool) {
						for range in {
							for range 10 {
								time.Sleep(expires)
							}
							if !yield(&AddResponse{1}, nil) {
								return
							}
						}
					}
				}))
				takes(t, 20*expires, func() {
					sums, err := collect(doubler(caller, "svc.late")(t.Context(), numbers(2)))
					assert.NoError(t, err)
					assert.Equal(t, sums, []int{1, 1})
				})
			})
		})
	}
}

func TestDirectStreams(t *testing.T) {
	service, caller, s := pair(t)
	other := as(t, s, "service", "_RI.svc", content(t))
	serveStreams(t, service)
	serveStreams(t, other)
	for _, b := range []*bus.Bus{service, other} {
		ctx, report := endpoint.Observe(endpoint.WithInstance(t.Context(), b.ID()))
		sums, err := collect(doubler(caller, "svc.double")(ctx, numbers(100)))
		assert.NoError(t, err)
		assert.Equal(t, sums, upTo(100, 2))
		assert.Equal(t, report.Instance, b.ID())
	}
	_, err := collect(counter(caller, "svc.count")(endpoint.WithInstance(t.Context(), "nobody"), &AddRequest{}))
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	nothingLeft(t, service, caller)
}

// A stream has a place of the endpoint's for as long as it lives.
func TestStreamsAreAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, service, caller, _ := farStreams(t, endpoint.Concurrency(2), endpoint.Backlog(1, 3*time.Second))
		tail := counter(caller, "svc.tail")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := collect(tail(ctx, &AddRequest{A: 1}))
				errs <- err
			}()
		}
		synctest.Wait()
		_, err := collect(tail(ctx, &AddRequest{}))
		failed(t, err, endpoint.ResourceExhausted, endpoint.ReasonBacklogFull, endpoint.NotExecuted)
		start := time.Now()
		failed(t, <-errs, endpoint.ResourceExhausted, endpoint.ReasonBacklogWait, endpoint.NotExecuted)
		assert.Equal(t, time.Since(start), 3*time.Second)
		assert.Equal(t, statsOf(t, service, "svc.tail").InFlight, int64(2))
		cancel()
		for range 2 {
			failed(t, <-errs, endpoint.Canceled, "", endpoint.MaybeExecuted)
		}
		clean(t, service, caller)
	})
}

// Middleware on both sides surrounds the whole stream, and sees how it ended.
func TestMiddlewareSeesTheEndOfAStream(t *testing.T) {
	service, caller, _ := pair(t)
	var mu sync.Mutex
	seen := map[endpoint.Side]endpoint.Code{}
	look := endpoint.Middleware(func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			reply, err := next(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			seen[c.Side] = endpoint.CodeOf(err)
			return reply, err
		}
	})
	serveStreams(t, service, look)
	_, err := collect(counter(caller, "svc.count", look)(t.Context(), &AddRequest{A: 100, B: 13}))
	assert.ErrorIs(t, err, endpoint.FailedPrecondition)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, seen, map[endpoint.Side]endpoint.Code{endpoint.ServerSide: endpoint.FailedPrecondition, endpoint.ClientSide: endpoint.FailedPrecondition})
	assert.Eventually(t, func() bool { // the caller hears of it first
		st := statsOf(t, service, "svc.count")
		return st.Failures() == 1
	})
}

// Without the grant for instances' subjects a caller can't hold a stream, and is told so when it first tries.
func TestStreamWithoutTheGrant(t *testing.T) {
	s := least(t, func(users map[string]string) {
		users["client"] = `permissions { subscribe: { allow: ["_RI.cli.>"] }, publish: { allow: ["svc.>"] } }`
	})
	service, caller := as(t, s, "service", "_RI.svc"), as(t, s, "client", "_RI.cli")
	serveStreams(t, service)
	sums, err := collect(counter(caller, "svc.count")(t.Context(), &AddRequest{A: 10}))
	assert.NoError(t, err, "what needs no credit goes")
	assert.Equal(t, sums, upTo(10, 1))
	timed(t, soon, func() {
		_, err = collect(doubler(caller, "svc.double")(t.Context(), numbers(1000)))
		failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.MaybeExecuted)
	})
	assert.NoError(t, service.Close()) // nobody can tell it that its caller is gone
}

// A storm of callers that leave costs few messages, and leaves nothing behind.
func TestManyStreamsLeaveAtOnce(t *testing.T) {
	streams := scaled(1000, 10_000)
	service, caller, s := pair(t)
	causes := make(chan cause, streams)
	serve(t, service, "svc.tail", endpoint.NewServerStream(silentStream(causes), endpoint.Concurrency(streams)))
	frames, named := cancels(t, s)
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, done := make(chan bool, streams), make(chan error, streams)
	for range streams {
		go func() {
			var last error
			for _, err := range counter(caller, "svc.tail")(ctx, &AddRequest{A: 1}) {
				if last = err; err == nil {
					got <- true
				}
			}
			done <- last
		}()
	}
	for range streams {
		<-got
	}
	cancel()
	for range streams {
		failed(t, <-done, endpoint.Canceled, "", endpoint.MaybeExecuted)
		assert.ErrorIs(t, (<-causes).err, endpoint.Canceled)
	}
	nothingLeft(t, service, caller)
	assert.Eventually(t, func() bool { return int(named.Load()) == streams })
	t.Logf("%d streams canceled in %d messages", streams, frames.Load())
	assert.True(t, int(frames.Load()) <= streams/50+20, "few messages")
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+150 }, "goroutines end, but for the parked ones")
}

// TestAllocStream counts what an item costs, caller, service and broker together, beside the same published raw.
func TestAllocStream(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const items = 20_000
	s := bustest.Server(t)
	service, caller := dialled(t, s), dialled(t, s)
	body := make([]byte, 1024)
	serve(t, service, "svc.raw", endpoint.NewServerStream(endpoint.Emit(func(_ context.Context, _ []byte, send func([]byte) error) error {
		for range items {
			if err := send(body); err != nil {
				return err
			}
		}
		return nil
	}), endpoint.Codec(codec.Raw)))
	call := endpoint.ServerStreamCaller[[]byte, []byte](caller, "svc.raw", endpoint.Codec(codec.Raw))
	ours := func() {
		n := 0
		for _, err := range call(t.Context(), []byte("x")) {
			assert.NoError(t, err)
			n++
		}
		assert.Equal(t, n, items)
	}
	server, client := foreign(t, s), foreign(t, s)
	arrived := make(chan int, items)
	respond(t, client, "raw.items", func(m *nats.Msg) { arrived <- len(m.Data) })
	raw := func() {
		for range items {
			assert.NoError(t, server.Publish("raw.items", body))
		}
		for range items {
			<-arrived
		}
	}
	count := func(f func()) (perItem float64, rate float64) {
		f()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		f()
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / items, items / took.Seconds()
	}
	a, fast := count(ours)
	b, rawRate := count(raw)
	t.Logf("an item allocates %.1f times, raw %.1f times; %.0f items a second, raw %.0f", a, b, fast, rawRate)
	assert.True(t, a <= b+3, fmt.Sprintf("%.1f more than raw", a-b))
}
