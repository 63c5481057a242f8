package bus_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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

// crafter sends requests with reply tokens of a test's choice.
type crafter struct {
	nc      *nats.Conn
	prefix  string
	replies chan *nats.Msg
}

func newCrafter(t *testing.T, s *embedded.Server) *crafter {
	t.Helper()
	c := &crafter{nc: foreign(t, s), prefix: foreign(t, s).NewInbox(), replies: make(chan *nats.Msg, 16)}
	respond(t, c.nc, c.prefix+".*", func(m *nats.Msg) { c.replies <- m })
	return c
}

func (c *crafter) send(t *testing.T, subject, token, body string, h nats.Header) *nats.Msg {
	t.Helper()
	assert.NoError(t, c.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: c.prefix + "." + token, Header: h, Data: []byte(body)}))
	select {
	case m := <-c.replies:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no reply")
		return nil
	}
}

const anyID = "0000abcdefghijk"

func sent(ago time.Duration) string {
	return "~s" + strconv.FormatInt(time.Now().Add(-ago).UnixMilli(), 36)
}

func TestSendTimeBackStop(t *testing.T) {
	s := bustest.Server(t, unheard())
	var ran atomic.Int32
	counted := endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	})
	serve(t, connect(t, s, quiet()), "svc.add", counted)
	serve(t, connect(t, s, quiet(), bus.WithClockSkew(time.Hour)), "loose.add", counted)
	serve(t, connect(t, s, quiet(), bus.WithClockSkew(0)), "strict.add", counted)
	c := newCrafter(t, s)
	for _, x := range []struct {
		subject, token string
		header         nats.Header
		runs           bool
	}{
		{"svc.add", anyID + "~d1000m" + sent(0), nil, true},
		{"svc.add", anyID + "~d1000m" + sent(2*time.Second), nil, true}, // within the skew
		{"svc.add", anyID + "~d1000m" + sent(3100*time.Millisecond), nil, false},
		{"svc.add", anyID + "~d1000m" + sent(-time.Hour), nil, true}, // a clock that is ahead
		{"svc.add", anyID + "~d1000m~s0", nil, false},
		{"svc.add", anyID + "~d1000m~s" + strconv.FormatInt(1<<43-1, 36), nil, true}, // no overflow
		{"svc.add", anyID + "~d99999999H" + sent(time.Hour), nil, true},
		{"svc.add", anyID + sent(time.Hour), nil, false}, // no timeout: the service's own counts
		{"svc.add", anyID + "~d0m" + sent(0), nil, false},
		{"svc.add", anyID + "~d1000m" + sent(time.Hour), nats.Header{"Rpc-Sent": {strconv.FormatInt(time.Now().UnixMilli(), 10)}}, true}, // a header wins
		{"svc.add", "foreign", nats.Header{"Rpc-Timeout": {"1S"}, "Rpc-Sent": {"1"}}, false},
		{"loose.add", anyID + "~d1000m" + sent(30*time.Minute), nil, true},
		{"loose.add", anyID + "~d1000m" + sent(61*time.Minute), nil, false},
		{"strict.add", anyID + "~d1000m" + sent(1500*time.Millisecond), nil, false},
	} {
		before := ran.Load()
		m := c.send(t, x.subject, x.token, `{"A":1,"B":2}`, x.header)
		if x.runs {
			assert.Equal(t, string(m.Data), `{"Sum":3}`, x.token)
			assert.Equal(t, ran.Load(), before+1)
			continue
		}
		assert.Equal(t, m.Header.Get("Rpc-Code"), "deadline_exceeded", x.token)
		assert.Equal(t, m.Header.Get("Rpc-Reason"), "expired", x.token)
		assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed", x.token)
		assert.Equal(t, ran.Load(), before)
	}
}

func TestMalformedHeadersAreRefused(t *testing.T) {
	service, _, s := pair(t)
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	}))
	nc := foreign(t, s)
	for _, kv := range [][]string{
		{"Rpc-Timeout", "soon"},
		{"rpc-timeout", "1"},
		{"RPC-TIMEOUT", "123456789m"},
		{"Rpc-Timeout", ""},
		{"Rpc-Timeout", "-1S"},
		{"Rpc-Sent", "yesterday"},
		{"Rpc-Sent", "-1"},
		{"Rpc-Attempt", "x"},
		{"Rpc-Attempt", "-1"},
		{"Rpc-Ack", "yes"},
		{"Rpc-Timeout", "1S", "Rpc-Timeout", "2S"},
	} {
		m := request(t, nc, "svc.add", `{"A":1,"B":2}`, kv...)
		assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument", kv...)
		assert.Equal(t, m.Header.Get("Rpc-Reason"), "malformed_header", kv...)
		assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed", kv...)
	}
	assert.Equal(t, own(service).Malformed, uint64(11))
	m := request(t, nc, "svc.add", `{"A":1,"B":2}`, "Rpc-Stream", "server")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "unimplemented")
	assert.Equal(t, ran.Load(), int32(0))
	m = request(t, nc, "svc.add", `{"A":1,"B":2}`, "Rpc-Future", "1", "Rpc-Future", "2", "Rpc-Ctl", "dance", "Nats-Own", "x", "Status", "503")
	assert.Equal(t, string(m.Data), `{"Sum":3}`)
}

func TestMalformedTokensAreRefused(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet())
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		return add(ctx, r)
	}))
	c := newCrafter(t, s)
	for i, token := range []string{anyID + "~d5", anyID + "~dsoon", anyID + "~d5S~d5S", anyID + "~s", anyID + "~s18ce53un18f", anyID + "~m", anyID + "~x~a~a"} {
		m := c.send(t, "svc.add", token, `{"A":1,"B":2}`, nats.Header{"Rpc-Timeout": {"5S"}}) // a header of the same meaning saves nothing
		assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument", token)
		assert.Equal(t, m.Header.Get("Rpc-Reason"), "malformed_header", token)
		assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed", token)
		assert.Equal(t, own(service).Malformed, uint64(i+1))
	}
	assert.Equal(t, ran.Load(), int32(0))
}

func TestOtherTokensAreForeign(t *testing.T) {
	s := bustest.Server(t, unheard())
	service := connect(t, s, quiet())
	serve(t, service, "svc.left", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		d, _ := ctx.Deadline()
		return &AddResponse{inSeconds(time.Until(d))}, nil
	}, endpoint.Timeout(time.Minute)))
	c := newCrafter(t, s)
	left := func(token string) string { return string(c.send(t, "svc.left", token, `{}`, nil).Data) }
	assert.Equal(t, left(anyID+"~d5S"), `{"Sum":5}`)
	assert.Equal(t, left(anyID+"~d5S~z9~y"+strings.Repeat("9", 30)), `{"Sum":5}`, "unknown keys are skipped")
	for _, token := range []string{
		"plain", anyID, "short~d5S", anyID + "~d5S~", anyID + "~d5S~~", anyID + "~D5S", anyID + "~s!", "short~dsoon",
		anyID + "-~d5S", anyID + "~d5S" + strings.Repeat("~z9", 60),
	} {
		assert.Equal(t, left(token), `{"Sum":60}`, token)
	}
}

// about tells what a handler sees.
type about struct {
	Left     time.Duration
	Headers  map[string][]string
	Attempt  int
	Trace    string
	Instance string
}

func tell(ctx context.Context, _ *AddRequest) (*about, error) {
	c := endpoint.FromContext(ctx)
	d, _ := ctx.Deadline()
	a := &about{Left: time.Until(d), Attempt: c.Attempt, Trace: c.Trace(), Instance: c.Instance(), Headers: map[string][]string{}}
	for name, v := range c.Header.All() {
		a.Headers[name] = append(a.Headers[name], v)
	}
	c.Reply.Add("X-Reply", "one")
	c.Reply.Add("x-reply", "two")
	c.Trailer.Add("X-End", "one")
	c.Trailer.Add("X-End", "two")
	return a, nil
}

func TestMetadataCrosses(t *testing.T) {
	const unsampled, sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, opts := range map[string][]bus.Option{"token": {quiet()}, "headers": {quiet(), bus.WithHeaderMetadata()}} {
		t.Run(name, func(t *testing.T) {
			s := bustest.Server(t, unheard())
			service, caller := connect(t, s, quiet()), connect(t, s, opts...)
			serve(t, service, "svc.tell", endpoint.New(tell))
			for _, trace := range []string{"", unsampled, sampled} {
				call := endpoint.Caller[*AddRequest, *about](caller, "svc.tell", endpoint.With(func(next endpoint.Handler) endpoint.Handler {
					return func(ctx context.Context, c *endpoint.Call) (any, error) {
						c.SetTrace(trace)
						c.Attempt = 3
						return next(ctx, c)
					}
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				ctx, report := endpoint.Observe(endpoint.WithHeader(ctx, "X-One", "1", "x-Two", "a", "x-Two", "b"))
				got, err := call(ctx, &AddRequest{})
				cancel()
				assert.NoError(t, err)
				assert.True(t, got.Left > 4*time.Second && got.Left <= 7*time.Second, "the deadline crosses: "+got.Left.String())
				assert.Equal(t, got.Attempt, 3)
				assert.Equal(t, got.Trace, trace)
				assert.Equal(t, got.Headers["X-One"], []string{"1"})
				assert.Equal(t, got.Headers["x-Two"], []string{"a", "b"})
				assert.Equal(t, got.Instance, service.ID())
				assert.Equal(t, report.Instance, service.ID())
				assert.Equal(t, fmt.Sprint(report.Reply.Values("X-Reply")), "[one two]")
				assert.Equal(t, fmt.Sprint(report.Trailer.Values("x-end")), "[one two]")
				assert.Equal(t, report.Reply.Len()+report.Trailer.Len(), 4)
			}
		})
	}
}

func TestInstanceOnlyWhenAsked(t *testing.T) {
	service, _, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	assert.Equal(t, len(request(t, foreign(t, s), "svc.add", `{"A":1,"B":2}`).Header), 0)
	m := request(t, foreign(t, s), "svc.add", `{"A":1,"B":2}`, "Rpc-Tell", "instance")
	assert.Equal(t, m.Header.Get("Rpc-Instance"), service.ID())
}

// Who asks for the instance hears it of errors and refusals, too: there it matters most.
func TestErrorsNameTheInstance(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithMaxPayload(4096))
	service := connect(t, s, quiet())
	g := newGate(t)
	serve(t, service, "svc.add", endpoint.New(add))
	serve(t, service, "svc.panic", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) { panic("so it goes") }))
	serve(t, service, "svc.long", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) {
		return nil, endpoint.NotFound.New(strings.Repeat("m", 5000))
	}))
	serve(t, service, "svc.full", endpoint.New(func(context.Context, *AddRequest) (*AddResponse, error) {
		g.pass()
		return &AddResponse{}, nil
	}, endpoint.Concurrency(1), endpoint.Backlog(0, 0)))
	c := newCrafter(t, s)
	assert.NoError(t, c.nc.Publish("svc.full", []byte(`{}`)))
	g.await(t, 1)
	asked := nats.Header{"Rpc-Tell": {"instance"}}
	for _, x := range []struct {
		subject, token, body, code string
		header                     nats.Header
	}{
		{"svc.add", anyID + "~i1", `{"A":1,"B":13}`, "failed_precondition", nil},
		{"svc.add", "foreign", `{"A":1,"B":13}`, "failed_precondition", asked},
		{"svc.add", anyID + "~i1", `{`, "invalid_argument", nil},
		{"svc.add", anyID + "~i1~dsoon", `{}`, "invalid_argument", nil},
		{"svc.add", anyID + "~i1~d0m", `{}`, "deadline_exceeded", nil},
		{"svc.panic", anyID + "~i1", `{}`, "internal", nil},
		{"svc.long", anyID + "~i1", `{}`, "not_found", nil},
		{"svc.full", anyID + "~i1", `{}`, "resource_exhausted", nil},
		{"svc.full", "foreign", `{}`, "resource_exhausted", asked},
	} {
		m := c.send(t, x.subject, x.token, x.body, x.header)
		assert.Equal(t, m.Header.Get("Rpc-Code"), x.code)
		assert.Equal(t, m.Header.Get("Rpc-Instance"), service.ID(), x.subject+" "+x.token)
		m = c.send(t, x.subject, strings.Replace(x.token, "~i1", "~d5S", 1), x.body, nil)
		assert.Equal(t, m.Header.Get("Rpc-Instance"), "", "not asked")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	service, caller, s := pair(t)
	var ran atomic.Int32
	serve(t, service, "svc.add", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		ran.Add(1)
		if r.A < 0 {
			endpoint.FromContext(ctx).Reply.Set("X-Big", strings.Repeat("x", -r.A))
		}
		return add(ctx, r)
	}))
	sum := adder(caller, "svc.add")
	_, err := sum(endpoint.WithHeader(t.Context(), "X-Big", strings.Repeat("x", 9<<10)), &AddRequest{1, 2})
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonHeaderTooLarge, endpoint.NotSent)
	m := request(t, foreign(t, s), "svc.add", `{"A":1,"B":2}`, "X-Big", strings.Repeat("x", 9<<10))
	assert.Equal(t, m.Header.Get("Rpc-Code"), "invalid_argument")
	assert.Equal(t, m.Header.Get("Rpc-Reason"), "header_too_large")
	assert.Equal(t, ran.Load(), int32(0))
	_, err = sum(t.Context(), &AddRequest{-9 << 10, 2})
	failed(t, err, endpoint.Internal, endpoint.ReasonHeaderTooLarge, endpoint.Executed)
	_, err = sum(endpoint.WithHeader(t.Context(), "X-Big", strings.Repeat("x", 7<<10)), &AddRequest{-7 << 10, 2})
	assert.NoError(t, err)
}

func TestReservedHeadersAreRefused(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.reply", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		endpoint.FromContext(ctx).Reply.Set("Nats-Service-Error", "x")
		return &AddResponse{}, nil
	}))
	serve(t, service, "svc.trailer", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		endpoint.FromContext(ctx).Trailer.Set("X-End", "a\r\nb")
		return &AddResponse{}, nil
	}))
	for _, name := range []string{"Rpc-Timeout", "rpc-x", "Nats-Trace-Only", "Status", "Description", "bad name", "", "X\r\nY"} {
		_, err := adder(caller, "svc.reply")(endpoint.WithHeader(t.Context(), name, "1"), &AddRequest{})
		failed(t, err, endpoint.InvalidArgument, endpoint.ReasonMalformedHeader, endpoint.NotSent)
	}
	_, err := adder(caller, "svc.reply")(endpoint.WithHeader(t.Context(), "X-Own", "a\r\nb"), &AddRequest{})
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonMalformedHeader, endpoint.NotSent)
	for _, subject := range []string{"svc.reply", "svc.trailer"} {
		_, err = adder(caller, subject)(t.Context(), &AddRequest{})
		failed(t, err, endpoint.Internal, endpoint.ReasonMalformedHeader, endpoint.Executed)
	}
}

func TestErrorsCarryHeaders(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.fail", endpoint.New(func(ctx context.Context, _ *AddRequest) (*AddResponse, error) {
		endpoint.FromContext(ctx).Reply.Set("X-Hint", "later")
		endpoint.FromContext(ctx).Trailer.Set("X-End", "soon")
		return nil, endpoint.Unavailable.New("closed").WithRetryAfter(250 * time.Millisecond)
	}))
	ctx, report := endpoint.Observe(t.Context())
	_, err := adder(caller, "svc.fail")(ctx, &AddRequest{})
	e := failed(t, err, endpoint.Unavailable, "", endpoint.Executed)
	assert.Equal(t, e.RetryAfter, 250*time.Millisecond)
	assert.Equal(t, report.Reply.Get("x-hint"), "later")
	assert.Equal(t, report.Trailer.Get("x-end"), "soon")
}

// As many headers as an application may send, and one of ours on top: refused here rather than by the service.
func TestOneHeaderTooMany(t *testing.T) {
	service, caller, _ := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	var most []string
	for i := range endpoint.MaxHeaderLines {
		most = append(most, "X-"+strconv.Itoa(i), "")
	}
	ctx := endpoint.WithHeader(t.Context(), most...)
	sampled := func(next endpoint.Handler) endpoint.Handler {
		return func(ctx context.Context, c *endpoint.Call) (any, error) {
			c.SetTrace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
			return next(ctx, c)
		}
	}
	_, err := adder(caller, "svc.add")(ctx, &AddRequest{1, 2})
	assert.NoError(t, err)
	_, err = adder(caller, "svc.add", endpoint.With(sampled))(ctx, &AddRequest{1, 2})
	failed(t, err, endpoint.InvalidArgument, endpoint.ReasonHeaderTooLarge, endpoint.NotSent)

	serve(t, service, "svc.many", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
		for i := range endpoint.MaxHeaderLines {
			endpoint.FromContext(ctx).Reply.Set("X-"+strconv.Itoa(i), "")
		}
		return add(ctx, r)
	}))
	_, err = adder(caller, "svc.many")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	ctx, _ = endpoint.Observe(t.Context()) // who wants to know the instance gets one more
	_, err = adder(caller, "svc.many")(ctx, &AddRequest{1, 2})
	assert.NoError(t, err)
}

func TestMoreTrailersThanAreTaken(t *testing.T) {
	_, caller, s := pair(t)
	respond(t, foreign(t, s), "svc.add", func(m *nats.Msg) {
		h := nats.Header{"Rpc-Trailer-X": make([]string, endpoint.MaxHeaderLines+1)}
		_ = m.RespondMsg(&nats.Msg{Header: h, Data: []byte(`{"Sum":3}`)})
	})
	_, err := adder(caller, "svc.add")(t.Context(), &AddRequest{})
	failed(t, err, endpoint.Internal, endpoint.ReasonHeaderTooLarge, endpoint.Executed)
}
