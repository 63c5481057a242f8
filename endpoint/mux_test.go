package endpoint_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

var (
	_ endpoint.Transport     = (*endpoint.Mux)(nil)
	_ endpoint.Server        = (*endpoint.Mux)(nil)
	_ endpoint.Directory     = (*endpoint.Mux)(nil)
	_ endpoint.StatsReporter = (*endpoint.Mux)(nil)
)

// gate is a handler that stays until it is let go.
type gate struct {
	entered chan struct{}
	leave   chan struct{}
	ran     atomic.Int32
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 100), leave: make(chan struct{})} }

func (g *gate) handle(context.Context, *addRequest) (*addResponse, error) {
	g.ran.Add(1)
	g.entered <- struct{}{}
	<-g.leave
	return &addResponse{}, nil
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		m := serve(t, endpoint.New(g.handle))
		start := time.Now()
		_, err := caller(m, endpoint.Timeout(time.Second))(t.Context(), &addRequest{})
		e := asError(t, err, endpoint.DeadlineExceeded, endpoint.MaybeExecuted)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.True(t, !e.Remote())
		assert.Equal(t, time.Since(start), time.Second)
		close(g.leave)
	})
}

// The handler's own context tells a deadline from a cancellation, and the server's timeout bounds it too.
func TestHandlerContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		wait := func(ctx context.Context, _ *addRequest) (*addResponse, error) {
			<-ctx.Done()
			ends <- errors.Join(ctx.Err(), context.Cause(ctx))
			return nil, ctx.Err()
		}
		m := serve(t, endpoint.New(wait))
		_, err := caller(m, endpoint.Timeout(time.Second))(t.Context(), &addRequest{})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, <-ends, context.DeadlineExceeded)

		ctx, cancel := context.WithCancelCause(t.Context())
		secret := errors.New("secret")
		time.AfterFunc(time.Second, func() { cancel(secret) })
		_, err = caller(m)(ctx, &addRequest{})
		assert.ErrorIs(t, err, context.Canceled)
		end := <-ends
		assert.ErrorIs(t, end, context.Canceled)
		assert.True(t, !errors.Is(end, secret), "causes do not cross")

		bounded := serve(t, endpoint.New(wait, endpoint.Timeout(time.Second)))
		start := time.Now()
		_, err = caller(bounded)(t.Context(), &addRequest{})
		asError(t, err, endpoint.DeadlineExceeded, endpoint.Executed)
		assert.ErrorIs(t, <-ends, context.DeadlineExceeded)
		assert.Equal(t, time.Since(start), time.Second)
	})
}

func TestNoContextValuesCross(t *testing.T) {
	type key struct{}
	m := serve(t, endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
		c := endpoint.FromContext(ctx)
		if ctx.Value(key{}) != nil || c.Side != endpoint.ServerSide || c.Header.Get("X-Tenant") != "acme" || c.Subject != "svc.op" || c.Instance() == "" {
			return nil, endpoint.Internal.New("wrong context")
		}
		c.Reply.Set("X-Served", c.Instance())
		return &addResponse{}, nil
	}))
	ctx, report := endpoint.Observe(endpoint.WithHeader(context.WithValue(t.Context(), key{}, 1), "x-tenant", "acme"))
	_, err := caller(m)(ctx, &addRequest{})
	assert.NoError(t, err)
	assert.Equal(t, report.Reply.Get("x-served"), report.Instance)
	_, err = caller(m)(endpoint.WithHeader(t.Context(), "Rpc-Timeout", "1m"), &addRequest{})
	asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
}

func TestDeadlineWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		m := serve(t, endpoint.New(g.handle, endpoint.Concurrency(1), endpoint.Backlog(10, time.Hour)))
		go func() { _, _ = caller(m, endpoint.Timeout(time.Hour))(t.Context(), &addRequest{}) }()
		<-g.entered
		_, err := caller(m, endpoint.Timeout(time.Second))(t.Context(), &addRequest{})
		e := asError(t, err, endpoint.DeadlineExceeded, endpoint.NotExecuted)
		assert.Equal(t, e.Reason(), endpoint.ReasonExpired)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		time.AfterFunc(time.Second, cancel)
		_, err = caller(m)(ctx, &addRequest{})
		e = asError(t, err, endpoint.Canceled, endpoint.NotExecuted)
		assert.Equal(t, e.Reason(), "")
		synctest.Wait()
		s := m.Stats()[0]
		assert.Equal(t, []int64{int64(s.Expired), s.Waiting, s.InFlight}, []int64{2, 0, 1})
		close(g.leave)
		synctest.Wait()
		assert.Equal(t, g.ran.Load(), 1)
	})
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		m := serve(t, endpoint.New(g.handle, endpoint.Concurrency(2), endpoint.Backlog(3, 2*time.Second)))
		start := time.Now()
		var wg sync.WaitGroup
		var full, waited atomic.Int32
		for range 10 {
			wg.Go(func() {
				_, err := caller(m)(t.Context(), &addRequest{})
				if err == nil {
					return
				}
				e := asError(t, err, endpoint.ResourceExhausted, endpoint.NotExecuted)
				assert.Equal(t, e.RetryAfter, time.Second)
				switch e.Reason() {
				case endpoint.ReasonBacklogFull:
					assert.Equal(t, time.Since(start), 0)
					full.Add(1)
				case endpoint.ReasonBacklogWait:
					assert.Equal(t, time.Since(start), 2*time.Second)
					waited.Add(1)
				}
			})
		}
		synctest.Wait()
		s := m.Stats()[0]
		assert.Equal(t, []int64{s.InFlight, s.Waiting, int64(s.Refused)}, []int64{2, 3, 5})
		time.Sleep(3 * time.Second)
		close(g.leave)
		wg.Wait()
		s = m.Stats()[0]
		assert.Equal(t, []int64{int64(full.Load()), int64(waited.Load()), int64(s.Refused), int64(s.Calls), s.InFlight, s.Waiting}, []int64{5, 3, 8, 2, 0, 0})
	})
}

func TestBacklogOfNone(t *testing.T) {
	g := newGate()
	m := serve(t, endpoint.New(g.handle, endpoint.Concurrency(1), endpoint.Backlog(0, 0)))
	done := make(chan error, 1)
	go func() {
		_, err := caller(m)(t.Context(), &addRequest{})
		done <- err
	}()
	<-g.entered
	_, err := caller(m)(t.Context(), &addRequest{})
	assert.Equal(t, asError(t, err, endpoint.ResourceExhausted, endpoint.NotExecuted).Reason(), endpoint.ReasonBacklogFull)
	close(g.leave)
	assert.NoError(t, <-done)
}

func TestServeFaults(t *testing.T) {
	var nilEndpoint *endpoint.Endpoint
	nilHandler := func(endpoint.Handler) endpoint.Handler { return nil }
	type bad struct{ C chan int }
	for name, c := range map[string]struct {
		subject string
		s       endpoint.Servable
		words   []string
	}{
		"nothing":         {"a.b", nil, []string{"nothing"}},
		"a nil endpoint":  {"a.b", nilEndpoint, []string{"nil"}},
		"zero endpoint":   {"a.b", &endpoint.Endpoint{}, []string{"nil"}},
		"no endpoints":    {"a.b", list{}, []string{"nothing"}},
		"a nil function":  {"a.b", endpoint.New[*addRequest, *addResponse](nil), []string{"nil"}},
		"a bad subject":   {"a.*", endpoint.New(add), []string{"wildcard"}},
		"a nil handler":   {"a.b", endpoint.New(add, endpoint.With(nilHandler)), []string{"nil handler"}},
		"outer nil":       {"a.b", endpoint.New(add).With(nilHandler), []string{"nil handler"}},
		"a type":          {"a.b", endpoint.New(func(context.Context, *bad) (*addResponse, error) { return nil, nil }), []string{"bad.C"}},
		"all at once":     {"a.b", list{endpoint.New[*addRequest, *addResponse](nil), endpoint.New(add, endpoint.Concurrency(0), endpoint.Quorum(1)), endpoint.New(add)}, []string{"nil", "Concurrency", "Quorum"}},
		"one twice":       {"a.b", list{endpoint.New(add), endpoint.New(add)}, []string{"twice"}},
		"a fault and two": {"a.b", list{nilEndpoint, endpoint.New(add), endpoint.New(add)}, []string{"nil", "twice"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := endpoint.NewMux()
			err := m.Serve(c.subject, c.s)
			e := asError(t, err, endpoint.InvalidArgument, endpoint.NotSent)
			assert.Contains(t, e.Message, c.words...)
			assert.Equal(t, len(m.Stats()), 1, "all or nothing")
		})
	}
	m := serve(t, endpoint.New(add))
	assert.Contains(t, m.Serve("svc.op", endpoint.New(add)).Error(), "served already")

	m = endpoint.NewMux(endpoint.MuxName("a b", "one"), endpoint.MuxCodecs(nil), nil)
	assert.Contains(t, m.Serve("a.b", endpoint.New(add)).Error(), "name", "version", "codec", "nil option")
}

type list []*endpoint.Endpoint

func (l list) Endpoints() []*endpoint.Endpoint { return l }

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		m := endpoint.NewMux()
		assert.NoError(t, m.Serve("svc", endpoint.Service(contract{Add: g.handle})))
		assert.NoError(t, m.Serve("svc.other", endpoint.New(add)))
		sum := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")
		done := make(chan error, 1)
		go func() {
			_, err := sum(t.Context(), &addRequest{})
			done <- err
		}()
		<-g.entered
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, m.Stop(ctx, "svc"), context.DeadlineExceeded)
		_, err := sum(t.Context(), &addRequest{})
		assert.Equal(t, asError(t, err, endpoint.Unavailable, endpoint.NotExecuted).Reason(), endpoint.ReasonNoResponders)
		close(g.leave)
		assert.NoError(t, <-done)
		assert.ErrorIs(t, m.Stop(t.Context(), "svc"), endpoint.NotFound)
		_, err = endpoint.Caller[*addRequest, *addResponse](m, "svc.other")(t.Context(), &addRequest{})
		assert.NoError(t, err, "what another Serve was given stays")
		assert.NoError(t, m.Serve("svc", endpoint.Service(contract{Add: add})))
	})
}

// Stop waits for every call that got in, also for those that got in just now.
func TestStopAgainstCalls(t *testing.T) {
	for range 100 {
		var running atomic.Int32
		m := serve(t, endpoint.New(func(context.Context, *addRequest) (*addResponse, error) {
			running.Add(1)
			defer running.Add(-1)
			runtime.Gosched()
			return &addResponse{}, nil
		}))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _, _ = caller(m)(t.Context(), &addRequest{}) })
		}
		assert.NoError(t, m.Stop(t.Context(), "svc.op"))
		assert.Equal(t, running.Load(), 0)
		wg.Wait()
	}
}

func TestDiscover(t *testing.T) {
	m := endpoint.NewMux(endpoint.MuxName("calculator", "v1.4.0"))
	opts := append(declared(), endpoint.Doc("adds"), endpoint.ReadOnly(), endpoint.Meta("team", "blue"), endpoint.Timeout(time.Second))
	assert.NoError(t, m.Serve("svc.op", endpoint.New(add, opts...)))
	assert.NoError(t, m.Serve("svc.raw", endpoint.New(func(_ context.Context, p *codec.Payload) (*codec.Payload, error) { return p, nil }, endpoint.Queue(""))))
	all, err := m.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(all), 1)
	i := all[0]
	assert.Equal(t, []string{i.Service, i.Version}, []string{"calculator", "1.4.0"})
	e := i.Endpoints[0]
	assert.Equal(t, []string{e.Name, e.Subject, e.Queue, e.Doc, strings.Join(e.Codecs, " ")}, []string{"svc-op", "svc.op", "q", "adds", "application/json"})
	assert.True(t, e.Idempotent && e.ReadOnly && e.Kind == endpoint.UnaryKind && e.Timeout == time.Second)
	assert.Equal(t, e.Errors, []endpoint.DeclaredError{{Name: "quota", Code: endpoint.ResourceExhausted}, {Name: "sold_out", Code: endpoint.FailedPrecondition}})
	assert.Contains(t, string(e.Request), `"A"`, `"B"`)
	assert.Contains(t, string(e.Response), `"Sum"`)
	raw := i.Endpoints[1]
	assert.True(t, raw.Request == nil && raw.Response == nil && raw.Queue == "")

	e.Metadata["team"], e.Codecs[0] = "red", "x" // the caller's own
	again, err := m.Discover(t.Context(), "calculator")
	assert.NoError(t, err)
	assert.Equal(t, again[0].Endpoints[0].Metadata["team"], "blue")
	assert.Equal(t, again[0].Endpoints[0].Codecs[0], "application/json")
	none, err := m.Discover(t.Context(), "nobody")
	assert.NoError(t, err)
	assert.Equal(t, len(none), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Discover(ctx, "")
	assert.ErrorIs(t, err, context.Canceled)
	assert.NoError(t, m.Ready(t.Context()))

	_, err = caller(m)(endpoint.WithInstance(t.Context(), i.ID), &addRequest{})
	assert.NoError(t, err)
	_, err = caller(m)(endpoint.WithInstance(t.Context(), "nobody"), &addRequest{})
	asError(t, err, endpoint.Unavailable, endpoint.NotExecuted)
	_, err = caller(m)(endpoint.WithInstance(endpoint.WithInstance(t.Context(), "nobody"), ""), &addRequest{})
	assert.NoError(t, err)
}

func TestMuxStats(t *testing.T) {
	back := serve(t, endpoint.New(add))
	m := serve(t, endpoint.New(caller(back)))
	_, _ = caller(m)(t.Context(), &addRequest{})
	_, _ = caller(m)(t.Context(), &addRequest{B: 13})
	s := m.Stats()
	assert.Equal(t, len(s), 2)
	assert.Equal(t, []string{s[0].Service, s[0].Name, s[0].Subject, s[1].Subject}, []string{"svc", "op", "svc.op", ""})
	assert.Equal(t, s[0].Calls, 2)
	assert.Equal(t, s[0].Errors, map[endpoint.Code]uint64{endpoint.Internal: 1}, "counted as what the caller is told")
	assert.Equal(t, s[0].LastError, "internal")
}

func TestPayloadEndpointAnswersAll(t *testing.T) {
	echoRaw := func(_ context.Context, p *codec.Payload) (*codec.Payload, error) { return p, nil }
	m := serve(t, endpoint.New(echoRaw))
	for _, media := range []string{"application/json", "application/xml", ""} {
		got, err := endpoint.Caller[*codec.Payload, *codec.Payload](m, "svc.op")(t.Context(), &codec.Payload{MediaType: media, Data: []byte("x")})
		assert.NoError(t, err)
		assert.Equal(t, string(got.Data), "x")
		if media == "" {
			media = "application/json"
		}
		assert.Equal(t, got.MediaType, media)
	}
	half := func(_ context.Context, p *codec.Payload) (*addResponse, error) {
		return &addResponse{Sum: len(p.Data)}, nil
	}
	got, err := endpoint.Caller[*codec.Payload, *addResponse](serve(t, endpoint.New(half)), "svc.op")(t.Context(), &codec.Payload{MediaType: "text/plain", Data: []byte("four")})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 4)
}

func TestCodecs(t *testing.T) {
	raw := func(_ context.Context, b *[]byte) (*[]byte, error) { return b, nil }
	m := serve(t, endpoint.New(raw), endpoint.MuxCodecs(codec.JSON, codec.Raw))
	data := []byte("\x00\xff")
	got, err := endpoint.Caller[*[]byte, *[]byte](m, "svc.op", endpoint.Codec(codec.Raw))(t.Context(), &data)
	assert.NoError(t, err)
	assert.Equal(t, *got, data)
	data[0] = 'x'
	assert.Equal(t, (*got)[0], byte(0), "the Mux copies, as a wire does")
	got, err = endpoint.Caller[*[]byte, *[]byte](m, "svc.op")(t.Context(), &data)
	assert.NoError(t, err)
	assert.Equal(t, *got, data)

	m = serve(t, endpoint.New(add, endpoint.Codec(codec.JSON)))
	_, err = endpoint.Caller[*[]byte, *[]byte](m, "svc.op", endpoint.Codec(codec.Raw))(t.Context(), &data)
	assert.Equal(t, asError(t, err, endpoint.InvalidArgument, endpoint.NotExecuted).Reason(), endpoint.ReasonMediaType)
}

// A nil *Error in an error interface is a programmer's slip that must neither panic nor count as success.
func TestTypedNilErrorIsAFailure(t *testing.T) {
	var none *endpoint.Error
	slip := endpoint.OnServer(func(endpoint.Handler) endpoint.Handler {
		return func(context.Context, *endpoint.Call) (any, error) { return nil, none }
	})
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("svc.add", endpoint.New(add, slip)))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add", endpoint.Errors[*missing]("missing", endpoint.NotFound))(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.Unknown)
	assert.Equal(t, m.Stats()[0].Failures(), uint64(1))
}

type missing struct{}

func (*missing) Error() string { return "missing" }

// An endpoint of raw bytes takes nothing else: bare bytes must not be read as JSON.
func TestRawEndpointTakesRawOnly(t *testing.T) {
	ep := endpoint.New(func(_ context.Context, b []byte) ([]byte, error) { return b, nil }, endpoint.Codec(codec.Raw))
	set, err := ep.Spec().Codecs(codec.NewSet(codec.JSON))
	assert.NoError(t, err)
	assert.Equal(t, set.Names(), []string{"application/octet-stream"})
}

// What production refuses, a unit test must refuse.
func TestReplyHeadersThatMustNotTravel(t *testing.T) {
	for what, of := range map[string]func(*endpoint.Call) *endpoint.Header{
		"reply":   func(c *endpoint.Call) *endpoint.Header { return &c.Reply },
		"trailer": func(c *endpoint.Call) *endpoint.Header { return &c.Trailer },
	} {
		for name, values := range map[string][]string{
			"Rpc-Foo": {"x"}, "Nats-Foo": {"x"}, "X-Big": {strings.Repeat("x", endpoint.MaxHeaderBytes)}, "X-Broken": {"a\r\nb"},
			"X-Many": make([]string, endpoint.MaxHeaderLines+1),
		} {
			set := func(ctx context.Context) {
				for _, v := range values {
					of(endpoint.FromContext(ctx)).Add(name, v)
				}
			}
			got := endpoint.Header{}
			spy := endpoint.With(func(next endpoint.Handler) endpoint.Handler {
				return func(ctx context.Context, c *endpoint.Call) (any, error) {
					r, err := next(ctx, c)
					got = of(c).Clone()
					return r, err
				}
			})
			check := func(err error, code endpoint.Code) {
				t.Helper()
				asError(t, err, code, endpoint.Executed)
				assert.Equal(t, got.Len(), 0, what, name)
			}
			unary := func(err error) error {
				m := serve(t, endpoint.New(func(ctx context.Context, _ *addRequest) (*addResponse, error) {
					set(ctx)
					return fixed, err
				}))
				_, err = caller(m, spy)(t.Context(), request)
				return err
			}
			check(unary(nil), endpoint.Internal)
			check(unary(endpoint.NotFound.New("")), endpoint.NotFound)
			for items := range 3 {
				m := serve(t, endpoint.NewServerStream(func(ctx context.Context, _ *addRequest) outSeq {
					set(ctx)
					return count(ctx, &addRequest{A: items})
				}))
				_, err := collect(endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.op", spy)(t.Context(), request))
				check(err, endpoint.Internal)
			}
		}
	}
}
