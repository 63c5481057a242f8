package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestDiscover(t *testing.T) {
	s := bustest.Server(t, unheard())
	a := connect(t, s, quiet(), bus.WithName("calc"), bus.WithVersion("v1.4.0"), bus.WithDescription("adds"),
		bus.WithMetadata(map[string]string{"zone": "a"}))
	b := connect(t, s, quiet(), bus.WithName("calc"))
	caller := connect(t, s, quiet())
	none, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(none), 0)
	serve(t, a, "svc.add", endpoint.New(add, endpoint.Doc("adds two numbers"), endpoint.ReadOnly(), endpoint.Timeout(2*time.Second),
		endpoint.Meta("team", "x"), endpoint.ErrorValue("unlucky", endpoint.FailedPrecondition, context.Canceled)))
	serve(t, b, "svc.sub", endpoint.New(add))
	nc := foreign(t, s)
	m, err := micro.AddService(nc, micro.Config{Name: "other", Version: "0.1.0", Endpoint: &micro.EndpointConfig{
		Subject: "other.do",
		Handler: micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(nil) }),
	}})
	assert.NoError(t, err)
	t.Cleanup(func() { _ = m.Stop() })
	assert.NoError(t, nc.Flush())

	all, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(all), 3)
	calc, err := caller.Discover(t.Context(), "calc")
	assert.NoError(t, err)
	assert.Equal(t, len(calc), 2)
	i := calc[0]
	if i.ID != a.ID() {
		i = calc[1]
	}
	assert.Equal(t, fmt.Sprint(i.Service, i.ID == a.ID(), i.Version, i.Description, i.Metadata), "calctrue1.4.0addsmap[zone:a]")
	assert.Equal(t, len(i.Endpoints), 1)
	e := i.Endpoints[0]
	assert.Equal(t, e.Name, "svc-add")
	assert.Equal(t, e.Subject, "svc.add")
	assert.Equal(t, e.Queue, "q")
	assert.Equal(t, e.Doc, "adds two numbers")
	assert.Equal(t, e.Kind, endpoint.UnaryKind)
	assert.Equal(t, e.Codecs, []string{"application/json"})
	assert.True(t, e.Idempotent && e.ReadOnly, "idempotent and read-only")
	assert.Equal(t, e.Timeout, 2*time.Second)
	assert.Equal(t, e.Errors, []endpoint.DeclaredError{{Name: "unlucky", Code: endpoint.FailedPrecondition}})
	assert.Equal(t, e.Metadata["team"]+e.Metadata["rpc.v"], "x1")
	assert.True(t, json.Valid(e.Request) && json.Valid(e.Response), "schemas")

	other, err := caller.Discover(t.Context(), "other")
	assert.NoError(t, err)
	assert.Equal(t, len(other), 1)
	assert.Equal(t, other[0].Endpoints[0].Subject, "other.do")
	assert.Equal(t, other[0].Version, "0.1.0")
	_, err = caller.Discover(t.Context(), "no.dots")
	failed(t, err, endpoint.InvalidArgument, "", endpoint.NotSent)
	timed(t, soon, func() {
		none, err = caller.Discover(t.Context(), "nobody")
		assert.NoError(t, err)
		assert.Equal(t, len(none), 0)
	})
	assert.Equal(t, caller.Slots(), 0)
}

func TestDiscoverLeavesOutWhatItCannotRead(t *testing.T) {
	service, caller, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	nc := foreign(t, s)
	for _, body := range []string{
		``, `null`, `{`, `[]`, `"x"`, `{"type":"io.nats.micro.v1.ping_response","id":"x"}`,
		`{"type":"io.nats.micro.v1.info_response"}`, `{"type":"io.nats.micro.v1.info_response","id":"x","endpoints":{}}`, `{"type":1}`,
	} {
		respond(t, nc, "$SRV.INFO", func(m *nats.Msg) { _ = m.Respond([]byte(body)) })
	}
	respond(t, nc, "$SRV.INFO", func(m *nats.Msg) { // one peer's failure is not everybody's
		_ = m.RespondMsg(&nats.Msg{
			Header: nats.Header{"Nats-Service-Error": {"x"}, "Nats-Service-Error-Code": {"500"}},
			Data:   []byte(`{"type":"io.nats.micro.v1.info_response","name":"x","id":"x"}`),
		})
	})
	found, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1)
	assert.Equal(t, found[0].ID, service.ID())
	assert.Equal(t, own(caller).Malformed, uint64(10))
}

// Whoever may answer decides what is in an answer: what is found may end in subjects, labels and pages.
func TestDiscoverTakesNoBadNames(t *testing.T) {
	service, caller, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	nc := foreign(t, s)
	const form = `{"type":"io.nats.micro.v1.info_response","name":%q,"id":%q,"version":"1.0.0","endpoints":[%s]}`
	respond(t, nc, "$SRV.INFO", func(m *nats.Msg) {
		for _, body := range []string{
			fmt.Sprintf(form, "twice", "ID1", ""), fmt.Sprintf(form, "twice", "ID1", ""), fmt.Sprintf(form, "twice", "ID2", ""),
			fmt.Sprintf(form, "../x", "ID1", ""), fmt.Sprintf(form, "", "ID1", ""), fmt.Sprintf(form, "x", "a b\r\n", ""), fmt.Sprintf(form, "x", "a.>", ""),
			fmt.Sprintf(form, "endpoints", "ID1", `{"name":"a","subject":"a.*.b"},{"name":"b","subject":"a..b"},{"name":"c","subject":"$SYS.x"},{"name":"d","subject":"d"}`),
		} {
			_ = m.Respond([]byte(body))
		}
	})
	found, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	var got []string
	for _, i := range found {
		name := i.Service
		for _, e := range i.Endpoints {
			name += " " + e.Subject
		}
		got = append(got, name)
	}
	assert.Equal(t, got, []string{"endpoints a.*.b d", "svc svc.add", "twice", "twice"})
	assert.Equal(t, own(caller).Malformed, uint64(7), "one double, four identities, two subjects")
}

func TestDiscoverKeepsItsDeadline(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	respond(t, nc, "$SRV.INFO", func(m *nats.Msg) {
		for i := 0; ; i++ { // never falls silent
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_ = m.Respond(fmt.Appendf(nil, `{"type":"io.nats.micro.v1.info_response","name":"x","id":"%d"}`, i))
			}
		}
	})
	timed(t, soon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		found, err := caller.Discover(ctx, "")
		assert.NoError(t, err)
		assert.True(t, len(found) > 0, "what came is kept")
	})
}

func TestIdentity(t *testing.T) {
	s := bustest.Server(t, unheard())
	caller := connect(t, s, quiet())
	identities := func(t *testing.T, b *bus.Bus) string {
		t.Helper()
		all, err := caller.Discover(t.Context(), "")
		assert.NoError(t, err)
		var out []string
		for _, i := range all {
			if i.ID != b.ID() {
				continue
			}
			for _, e := range i.Endpoints {
				out = append(out, i.Service+"/"+e.Name)
			}
		}
		return strings.Join(out, " ")
	}
	for name, c := range map[string]struct {
		opts     []bus.Option
		subjects []string
		want     string
	}{
		"from the subject": {nil, []string{"svc.add"}, "svc/add"},
		"several tokens":   {nil, []string{"acme.users.get"}, "acme-users/get"},
		"one token":        {nil, []string{"ping"}, "ping/ping"},
		"several services": {nil, []string{"a.x", "b.x"}, "a/x b/x"},
		"characters":       {nil, []string{"sv:c.a+b"}, "sv_c/a_b"},
		"WithName":         {[]bus.Option{bus.WithName("Own_1")}, []string{"svc.add", "ping"}, "Own_1/svc-add Own_1/ping"},
		"clashes":          {[]bus.Option{bus.WithName("own")}, []string{"a.b", "a-b", "a+b", "a:b"}, "own/a-b own/a-b-2 own/a_b own/a_b-2"},
	} {
		t.Run(name, func(t *testing.T) {
			b := connect(t, s, append(c.opts, quiet())...)
			for _, subject := range c.subjects {
				serve(t, b, subject, endpoint.New(add))
			}
			assert.Equal(t, identities(t, b), c.want)
		})
	}
	for _, bad := range []string{"", "a.b", "a b", "ä", "a>"} {
		_, err := bus.Connect("", quiet(), bus.WithName(bad))
		assert.True(t, err != nil && strings.Contains(err.Error(), "WithName"), bad)
	}
	for _, bad := range []string{"", "1", "1.0", "x1.0.0", "01.0.0", "vv1.0.0"} {
		_, err := bus.Connect("", quiet(), bus.WithVersion(bad))
		assert.True(t, err != nil && strings.Contains(err.Error(), "WithVersion"), bad)
	}
}

func TestReady(t *testing.T) {
	s := bustest.Server(t)
	b, err := bus.Connect(s.URL(), quiet(), quickly())
	assert.NoError(t, err)
	assert.NoError(t, b.Ready(t.Context()), "without a service")
	serve(t, b, "svc.add", endpoint.New(add))
	serve(t, b, "other.add", endpoint.New(add))
	timed(t, soon, func() { assert.NoError(t, b.Ready(t.Context())) })
	s.Shutdown()
	assert.Eventually(t, func() bool { return !b.Conn().IsConnected() })
	timed(t, soon, func() {
		failed(t, b.Ready(t.Context()), endpoint.Unavailable, endpoint.ReasonDisconnected, endpoint.NotSent)
	})
	assert.NoError(t, s.Restart())
	assert.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, "ready again")
	assert.NoError(t, b.Drain(t.Context()))
	failed(t, b.Ready(t.Context()), endpoint.Unavailable, endpoint.ReasonDraining, endpoint.NotSent)
}

// nosy is a user that may not ask whether a service is there.
func nosy() embedded.Option {
	return embedded.WithUsers(embedded.User{Name: "u", Password: "p", Publish: embedded.Permission{Deny: []string{"$SRV.>"}}})
}

func TestReadyWithoutPermissionToAsk(t *testing.T) {
	s := bustest.Server(t, nosy())
	b, err := bus.Connect(s.URL(), quiet(), quickly(), bus.WithNATS(nats.UserInfo("u", "p")))
	assert.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	serve(t, b, "svc.Add", endpoint.New(add))
	serve(t, b, "Other.Add", endpoint.New(add))
	asks := func(want uint64) {
		t.Helper()
		before := b.Conn().Stats().OutMsgs
		timed(t, 1500*time.Millisecond, func() { assert.NoError(t, b.Ready(t.Context())) })
		assert.Equal(t, b.Conn().Stats().OutMsgs-before, want)
	}
	asks(2)
	asks(0) // what was denied is not asked again
	s.Shutdown()
	assert.Eventually(t, func() bool { return !b.Conn().IsConnected() })
	assert.NoError(t, s.Restart())
	assert.Eventually(t, b.Conn().IsConnected)
	asks(2) // a new connection may be allowed to
	asks(0)
}

func TestDiscoverWithoutPermissionToAsk(t *testing.T) {
	s := bustest.Server(t, unheard(), nosy())
	b := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
	for range 3 {
		for _, name := range []string{"", "svc"} {
			timed(t, 1500*time.Millisecond, func() {
				_, err := b.Discover(t.Context(), name)
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
				assert.ErrorIs(t, err, nats.ErrPermissionViolation)
			})
		}
	}
	assert.Equal(t, b.Slots(), 0)
}
