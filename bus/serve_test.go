package bus_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestQueueGroupSharesLoad(t *testing.T) {
	const instances, calls = 3, 600
	s := bustest.Server(t, unheard())
	var ran [instances]atomic.Int32
	for i := range instances {
		serve(t, connect(t, s, quiet()), "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
			ran[i].Add(1)
			return add(ctx, r)
		}))
	}
	sum := adder(connect(t, s, quiet()), "svc.add")
	for range calls {
		_, err := sum(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
	}
	total := int32(0)
	for i := range ran {
		n := ran[i].Load()
		total += n
		assert.True(t, n > calls/instances/2, fmt.Sprintf("instance %d got %d of %d", i, n, calls))
	}
	assert.Equal(t, total, int32(calls))
}

func TestWithoutQueueEveryInstanceGetsIt(t *testing.T) {
	s := bustest.Server(t, unheard())
	var ran atomic.Int32
	for range 3 {
		serve(t, connect(t, s, quiet()), "svc.all", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
			ran.Add(1)
			return add(ctx, r)
		}, endpoint.Queue("")))
	}
	caller := connect(t, s, quiet())
	_, err := adder(caller, "svc.all")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Eventually(t, func() bool { return ran.Load() == 3 && own(caller).Late == 2 })
}

func TestOtherQueue(t *testing.T) {
	s := bustest.Server(t, unheard())
	var a, b atomic.Int32
	for _, x := range []struct {
		n     *atomic.Int32
		queue string
	}{{&a, "one"}, {&b, "two"}, {&b, "two"}} {
		serve(t, connect(t, s, quiet()), "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
			x.n.Add(1)
			return add(ctx, r)
		}, endpoint.Queue(x.queue)))
	}
	_, err := adder(connect(t, s, quiet()), "svc.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Eventually(t, func() bool { return a.Load() == 1 && b.Load() == 1 }, "one of each group")
}

// group is a servable of a test's choice.
type group []*endpoint.Endpoint

func (g group) Endpoints() []*endpoint.Endpoint { return g }

func TestServeFaultsAreReportedAtOnce(t *testing.T) {
	b := alone(t, quiet())
	serve(t, b, "svc.taken", endpoint.New(add))
	type Deep struct{ Inner struct{ C chan int } }
	before := b.Conn().NumSubscriptions()
	err := b.Serve("svc.taken", group{
		endpoint.New(add),
		nil,
		endpoint.New[*AddRequest, *AddResponse](nil),
		endpoint.New(func(context.Context, *Deep) (*AddResponse, error) { return nil, nil }),
		endpoint.New(add, endpoint.Concurrency(-1)),
		{},
	})
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), `"svc.taken"`, "served already", "nil endpoint", "function", "Inner.C", "Concurrency")
	assert.Equal(t, b.Conn().NumSubscriptions(), before, "nothing is subscribed after a refusal")

	type Contract struct {
		Add  endpoint.Unary[*AddRequest, *AddResponse]
		Deep endpoint.Unary[*Deep, *AddResponse]
	}
	err = b.Serve("math", endpoint.Service(Contract{Add: add, Deep: func(context.Context, *Deep) (*AddResponse, error) { return nil, nil }}))
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, b.Conn().NumSubscriptions(), before, "all or nothing")
	_, err = adder(b, "math.add")(t.Context(), &AddRequest{1, 2})
	failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)

	for name, s := range map[string]endpoint.Servable{
		"nil": nil, "nothing": group{}, "twice": group{endpoint.New(add), endpoint.New(add)}, "nil endpoint": (*endpoint.Endpoint)(nil),
		"zero endpoint": &endpoint.Endpoint{},
	} {
		t.Run(name, func(t *testing.T) {
			failed(t, b.Serve("svc.x", s), endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
		})
	}
	failed(t, b.Serve("svc.taken", endpoint.New(add)), endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Equal(t, b.Conn().NumSubscriptions(), before)
	assert.Equal(t, len(b.Stats()), 2)
}

// A middleware of the bus that makes no handler is a fault of construction, not a panic at the first call.
func TestNilHandlerIsRefused(t *testing.T) {
	b := alone(t, quiet())
	b.Use(func(endpoint.Handler) endpoint.Handler { return nil })
	err := b.Serve("svc.add", endpoint.New(add))
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), "svc.add", "nil handler")
}

// The largest limit is no limit.
func TestLargestLimits(t *testing.T) {
	s := bustest.Server(t, unheard())
	b := connect(t, s, quiet(), bus.WithConcurrency(math.MaxInt))
	serve(t, b, "svc.bus", endpoint.New(add))
	serve(t, b, "svc.concurrency", endpoint.New(add, endpoint.Concurrency(math.MaxInt)))
	serve(t, b, "svc.backlog", endpoint.New(add, endpoint.Concurrency(1), endpoint.Backlog(math.MaxInt, 0)))
	serve(t, b, "svc.both", endpoint.New(add, endpoint.Concurrency(math.MaxInt), endpoint.Backlog(math.MaxInt, 0)))
	for _, name := range []string{"bus", "concurrency", "backlog", "both"} {
		resp, err := adder(b, "svc."+name)(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err, name)
		assert.Equal(t, resp.Sum, 3)
	}
}

func TestHandlerOfASpecWrittenByHand(t *testing.T) {
	b := alone(t, quiet())
	assert.True(t, b.Handler("svc.add", &endpoint.Spec{}) != nil, "a spec written by hand needs no types")
}

func TestPublishedInfoMustFit(t *testing.T) {
	b := connect(t, bustest.Server(t, unheard(), embedded.WithMaxPayload(2048)), quiet())
	before := b.Conn().NumSubscriptions()
	err := b.Serve("svc.add", endpoint.New(add, endpoint.Doc(strings.Repeat("long ", 500))))
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), "svc.add", "2048")
	assert.Equal(t, b.Conn().NumSubscriptions(), before)
	serve(t, b, "svc.add", endpoint.New(add))
}

func TestSubscriptionDenied(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "u", Password: "p", Subscribe: embedded.Permission{Allow: []string{"_INBOX.>", "svc.Ok q", "svc.Ok2 q"}}},
	))
	b := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
	serve(t, b, "svc.Ok", endpoint.New(add)) // without $SRV it is served and not found
	assert.NoError(t, b.Ready(t.Context()))
	before := b.Conn().NumSubscriptions()
	err := b.Serve("svc.Not", endpoint.New(add))
	failed(t, err, endpoint.PermissionDenied, "", endpoint.NotExecuted)
	assert.Contains(t, err.Error(), "svc.Not")
	assert.Equal(t, b.Conn().NumSubscriptions(), before)
	assert.Equal(t, len(b.Stats()), 2)
	// The first of a group is denied, and a service that needs its $SRV subjects, denied too, comes with it.
	err = b.Serve("other", group{endpoint.New(add)})
	assert.ErrorIs(t, err, endpoint.PermissionDenied)
	assert.Equal(t, b.Conn().NumSubscriptions(), before)
	serve(t, b, "svc.Ok2", endpoint.New(add))
}

// Middleware and servables may use the bus while they are served.
func TestServeHoldsNoLockOverUserCode(t *testing.T) {
	b := alone(t, quiet())
	serve(t, b, "auth.check", endpoint.New(add))
	var check endpoint.Unary[*AddRequest, *AddResponse]
	b.Use(func(next endpoint.Handler) endpoint.Handler {
		if check == nil {
			check = func(ctx context.Context, r *AddRequest) (*AddResponse, error) { return adder(b, "auth.check")(ctx, r) }
			_ = endpoint.Caller[*AddRequest, *AddResponse](b, "auth.check")
			_ = b.Stats()
		}
		return next
	})
	done := make(chan error, 1)
	go func() { done <- b.Serve("svc.add", endpoint.New(add)) }()
	select {
	case err := <-done:
		assert.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("deadlock")
	}
}

func TestUseIsOutermostOnBothSides(t *testing.T) {
	b := alone(t, quiet())
	var mu sync.Mutex
	var order []string
	mark := func(name string) endpoint.Middleware {
		return func(next endpoint.Handler) endpoint.Handler {
			return func(ctx context.Context, c *endpoint.Call) (any, error) {
				mu.Lock()
				order = append(order, c.Side.String()+" "+name)
				mu.Unlock()
				return next(ctx, c)
			}
		}
	}
	b.Use(mark("bus1"), mark("bus2"))
	serve(t, b, "svc.add", endpoint.New(add, endpoint.With(mark("endpoint"))))
	_, err := adder(b, "svc.add", endpoint.With(mark("caller")))(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, strings.Join(order, ", "), "client bus1, client bus2, client caller, server bus1, server bus2, server endpoint")
}

func TestPublishedRequestIsServed(t *testing.T) {
	service, _, s := pair(t)
	ran := make(chan struct{}, 1)
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran <- struct{}{}
		return add(ctx, r)
	}))
	assert.NoError(t, foreign(t, s).Publish("svc.add", []byte(`{"A":1,"B":13}`)))
	select {
	case <-ran:
	case <-time.After(10 * time.Second):
		t.Fatal("not served")
	}
}

func TestTwoBusesTwoSettings(t *testing.T) {
	s := bustest.Server(t, unheard())
	a := connect(t, s, quiet(), bus.WithName("a"), bus.WithRoots("_RA", "$SA"), bus.WithInboxPrefix("_IA"), bus.WithVersion("1.0.0"))
	b := connect(t, s, quiet(), bus.WithName("b"), bus.WithVersion("v2.1.0"))
	serve(t, a, "svc.a", endpoint.New(add))
	serve(t, b, "svc.b", endpoint.New(add))
	for _, x := range []*bus.Bus{a, b} {
		for _, subject := range []string{"svc.a", "svc.b"} {
			_, err := adder(x, subject)(t.Context(), &AddRequest{1, 2})
			assert.NoError(t, err)
		}
		assert.NoError(t, x.Ready(t.Context()))
	}
	found := func(x *bus.Bus) (names []string) {
		all, err := x.Discover(t.Context(), "")
		assert.NoError(t, err)
		for _, i := range all {
			names = append(names, i.Service+" "+i.Version)
		}
		return names
	}
	assert.Equal(t, found(a), []string{"a 1.0.0"})
	assert.Equal(t, found(b), []string{"b 2.1.0"})
}

func TestOptionFaultsAreReportedAtOnce(t *testing.T) {
	_, err := bus.Connect("nats://127.0.0.1:1", bus.WithName("no.dots"), bus.WithVersion("one"), bus.WithConcurrency(0), bus.WithDefaultTimeout(-1),
		bus.WithClockSkew(-1), bus.WithHeartbeat(4999*time.Millisecond), bus.WithHeartbeat(time.Hour),
		bus.WithInboxPrefix("a b"), bus.WithRoots("", "$SRV"), bus.WithCodec(nil), bus.WithCodecs(nil), bus.WithLogger(nil),
		bus.WithMetadata(map[string]string{"_nats.x": ""}), nil)
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), "WithName", "WithVersion", "WithConcurrency", "WithDefaultTimeout", "WithClockSkew", "WithHeartbeat: 4.999s", "WithHeartbeat: 1h", "WithInboxPrefix", "WithRoots",
		"WithCodec:", "WithCodecs:", "WithLogger", "WithMetadata", "nil option")
	_, err = bus.Connect("", bus.WithMetadata(map[string]string{"rpc.v": "2"}))
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	_, err = bus.Connect("", bus.WithRoots("_RPC", "$S.>"))
	assert.Contains(t, err.Error(), `WithRoots: the root "$S.>" has a wildcard`)
	_, err = bus.Connect("", bus.WithRoots(strings.Repeat("r", 600), "$S"))
	assert.Contains(t, err.Error(), `WithRoots: the root "rrr`, "512")
	_, err = bus.New(nil)
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), "nil")
	s := bustest.Server(t, unheard())
	_, err = bus.New(foreign(t, s), bus.WithNATS(nats.Name("x")))
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	assert.Contains(t, err.Error(), "WithNATS")
	_, err = bus.Connect("nats://user:secret@127.0.0.1:1")
	failed(t, err, endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
	assert.ErrorIs(t, err, nats.ErrNoServers)
	assert.Contains(t, err.Error(), "127.0.0.1:1")
	assert.True(t, !strings.Contains(err.Error(), "secret"), "no password in the error: "+err.Error())
	guarded := bustest.Server(t, unheard(), embedded.WithUsers(embedded.User{Name: "u", Password: "p"}))
	_, err = reach(guarded)
	failed(t, err, endpoint.Unauthenticated, "", endpoint.NotSent)
	for _, prefix := range []string{"_INBOX", "_INBOX.mine", "_RI.mine"} {
		b := connect(t, s, quiet(), bus.WithInboxPrefix(prefix))
		assert.True(t, strings.HasPrefix(b.Conn().NewInbox(), prefix+"."), "the connection's own inboxes, too")
		assert.Equal(t, len(b.Conn().Opts.InboxPrefix), len(prefix)+27)
		_, err := adder(b, "svc.nobody")(t.Context(), &AddRequest{})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	}
	b := connect(t, s, quiet(), bus.WithNATS(nats.CustomInboxPrefix("mine")))
	assert.True(t, strings.HasPrefix(b.Conn().NewInbox(), "mine."), "as the user says")
}
