package bus_test

import (
	"context"
	"errors"
	"log/slog"
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

// as connects a bus as a user of grants.
func as(t testing.TB, s *embedded.Server, user, prefix string, opts ...bus.Option) *bus.Bus {
	t.Helper()
	opts = append([]bus.Option{quiet(), bus.WithNATS(nats.UserInfo(user, user)), bus.WithInboxPrefix(prefix)}, opts...)
	return connect(t, s, opts...)
}

// content fails the test, at its end, when the broker denied a bus anything: what was denied may have gone unnoticed.
func content(t testing.TB) bus.Option {
	t.Helper()
	d := &denials{Handler: slog.DiscardHandler}
	t.Cleanup(func() {
		if what := d.last.Load(); what != nil {
			t.Errorf("the broker denied: %v", *what)
		}
	})
	return bus.WithLogger(slog.New(d))
}

// denials is a log that remembers the broker's refusals only.
type denials struct {
	slog.Handler

	last atomic.Pointer[error]
}

func (*denials) Enabled(context.Context, slog.Level) bool { return true }

func (d *denials) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && errors.Is(err, nats.ErrPermissionViolation) {
			d.last.Store(&err)
		}
		return true
	})
	return nil
}

// least starts a server with a user for each role of the service svc; the bridge exposes svc.add alone.
func least(t testing.TB, change func(users map[string]string), opts ...embedded.Option) *embedded.Server {
	t.Helper()
	users := map[string]string{}
	for name, r := range roles {
		users[name] = bus.Permissions(r, "svc")
	}
	users["bridge"] = bus.Permissions(bus.BridgeRole, "svc", "svc.add")
	if change != nil {
		change(users)
	}
	return bustest.Server(t, append(opts, unheard(), embedded.WithConfig(grants(users)))...)
}

// both returns a role's text with what another may publish besides.
func both(t testing.TB, role, other string) string {
	t.Helper()
	const head = "  publish: { allow: ["
	_, rest, ok := strings.Cut(other, head)
	more, _, found := strings.Cut(rest, "]")
	assert.True(t, ok && found && strings.Contains(role, head), role+other)
	return strings.Replace(role, head, head+more+", ", 1)
}

// The roles do all that they are for, at once, and the connection below the bus is usable, too.
func TestLeastPrivilege(t *testing.T) {
	s := least(t, nil)
	service, client := as(t, s, "service", "_RI.svc"), as(t, s, "client", "_RI.cli")
	bridge, finder := as(t, s, "bridge", "_RI.http"), as(t, s, "discovery", "_RI.find")
	serve(t, service, "svc.add", endpoint.New(add))
	timed(t, 1500*time.Millisecond, func() {
		for _, b := range []*bus.Bus{service, client, bridge, finder} {
			assert.NoError(t, b.Ready(t.Context()))
		}
		for _, b := range []*bus.Bus{client, bridge} {
			sum, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
			assert.NoError(t, err)
			assert.Equal(t, sum.Sum, 3)
			_, err = adder(b, "svc.add")(t.Context(), &AddRequest{1, 13})
			failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
			_, err = b.Discover(t.Context(), "svc")
			failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
			m, err := b.Conn().Request("svc.add", []byte(`{"A":1,"B":2}`), 500*time.Millisecond)
			assert.NoError(t, err, "Conn().Request")
			assert.Equal(t, string(m.Data), `{"Sum":3}`)
		}
		_, err := adder(client, "svc.nobody")(t.Context(), &AddRequest{1, 2})
		failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	})
	for _, name := range []string{"", "svc"} {
		found, err := finder.Discover(t.Context(), name)
		assert.NoError(t, err)
		assert.Equal(t, len(found), 1)
	}
	assert.NoError(t, service.Drain(t.Context()))
	for _, b := range []*bus.Bus{service, client, bridge, finder} {
		if err := b.Conn().LastError(); err != nil {
			assert.Contains(t, err.Error(), "$SRV.") // what was tried above and may not be
		}
	}
}

// allow_responses in the place of the grant to publish replies does as well.
func TestLeastPrivilegeByResponses(t *testing.T) {
	s := least(t, func(users map[string]string) {
		lines := strings.Split(users["service"], "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "  publish:") {
				lines[i] = ""
			}
			lines[i] = strings.Replace(lines[i], "# allow_responses", "allow_responses", 1)
		}
		users["service"] = strings.Join(lines, "\n")
		assert.Contains(t, users["service"], "\n  allow_responses")
	})
	service, client := as(t, s, "service", "_RI.svc"), as(t, s, "client", "_RI.cli")
	serve(t, service, "svc.add", endpoint.New(add))
	for range 3 {
		_, err := adder(client, "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
	}
	found, err := as(t, s, "discovery", "_RI.find").Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 1)
	assert.NoError(t, service.Conn().PublishMsg(&nats.Msg{Subject: "_RI.cli.guess"}))
	assert.NoError(t, service.Conn().Flush())
	assert.ErrorIs(t, service.Conn().LastError(), nats.ErrPermissionViolation, "nobody asked")
}

// Nobody does what is not of its role.
func TestRolesEndWhereTheyEnd(t *testing.T) {
	s := least(t, nil)
	for _, x := range []struct{ user, publish, subscribe string }{
		{user: "service", publish: "svc.add"},
		{user: "service", publish: "$SRV.PING"},
		{user: "service", publish: "_RPC.svc.ID.c.1"},
		{user: "service", subscribe: "svc.add"}, // but for its group: it would overhear
		{user: "service", subscribe: "_RI.cli.>"},
		{user: "service", subscribe: "$SRV.*.other"},
		{user: "client", publish: "other.add"},
		{user: "client", publish: "_RI.cli.x"},
		{user: "client", publish: "$SRV.PING"},
		{user: "client", subscribe: "svc.add"},
		{user: "client", subscribe: "_RI.http.>"},
		{user: "client", subscribe: "_RPC.svc.>"},
		{user: "bridge", publish: "svc.secret"},
		{user: "bridge", publish: "_RPC.svc.ID.e.svc.secret"},
		{user: "bridge", subscribe: "svc.add"},
		{user: "discovery", publish: "svc.add"},
		{user: "discovery", publish: "_RPC.svc.ID.c.1"},
		{user: "discovery", subscribe: ">"},
	} {
		nc := foreign(t, s, nats.UserInfo(x.user, x.user))
		var err error
		if x.publish != "" {
			err = nc.Publish(x.publish, nil)
		} else {
			_, err = nc.SubscribeSync(x.subscribe)
		}
		assert.NoError(t, err)
		assert.NoError(t, nc.Flush())
		assert.ErrorIs(t, nc.LastError(), nats.ErrPermissionViolation, x.user+" "+x.publish+x.subscribe)
	}
}

// without returns a role's text with less in it: the grants that are named are taken out.
func without(t testing.TB, text string, grants ...string) string {
	t.Helper()
	for _, g := range grants {
		less := strings.Replace(strings.Replace(text, `, "`+g+`"`, "", 1), `"`+g+`", `, "", 1)
		assert.True(t, less != text, g+" is not in "+text)
		text = less
	}
	return text
}

// What a bus does without a grant is what docs/protocol.md says: it says so at once, or goes without.
func TestWithoutAGrant(t *testing.T) {
	t.Run("service without its subject", func(t *testing.T) {
		s := least(t, nil)
		b := as(t, s, "service", "_RI.svc")
		timed(t, soon, func() {
			failed(t, b.Serve("other.add", endpoint.New(add)), endpoint.PermissionDenied, "", endpoint.NotExecuted)
		})
	})
	t.Run("service without the verbs", func(t *testing.T) {
		s := least(t, func(users map[string]string) {
			users["service"] = without(t, users["service"], "$SRV.PING", "$SRV.INFO", "$SRV.STATS", "$SRV.*.svc", "$SRV.*.svc.*")
		})
		b := as(t, s, "service", "_RI.svc")
		serve(t, b, "svc.add", endpoint.New(add))
		timed(t, soon, func() { assert.NoError(t, b.Ready(t.Context())) })
		_, err := adder(as(t, s, "client", "_RI.cli"), "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
		timed(t, soon, func() {
			found, err := as(t, s, "discovery", "_RI.find").Discover(t.Context(), "svc")
			assert.NoError(t, err)
			assert.Equal(t, len(found), 0)
		})
	})
	t.Run("without _RPC", func(t *testing.T) {
		s := least(t, func(users map[string]string) {
			users["service"] = without(t, users["service"], "_RPC.svc.>")
			users["client"] = without(t, users["client"], "_RPC.svc.>")
		})
		serve(t, as(t, s, "service", "_RI.svc"), "svc.add", endpoint.New(add))
		_, err := adder(as(t, s, "client", "_RI.cli"), "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
	})
	t.Run("without the inbox", func(t *testing.T) {
		s := least(t, nil)
		timed(t, soon, func() {
			_, err := reach(s, nats.UserInfo("client", "client"))
			failed(t, err, endpoint.PermissionDenied, "", endpoint.NotSent)
			assert.Contains(t, err.Error(), "WithInboxPrefix")
		})
	})
	t.Run("service without the caller's prefix", func(t *testing.T) {
		s := least(t, func(users map[string]string) {
			users["service"] = strings.Replace(users["service"], `allow: ["_RI.>"]`, `allow: ["_RI.http.>"]`, 1)
		})
		var log text
		service := as(t, s, "service", "_RI.svc", bus.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		serve(t, service, "svc.add", endpoint.New(add))
		client := as(t, s, "client", "_RI.cli") // which may take longer than the call
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		timed(t, soon, func() {
			_, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
			failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
		})
		log.has(t, "level=WARN", "ermissions", "_RI.cli.")
	})
	t.Run("call without its subject", func(t *testing.T) {
		s := least(t, nil)
		service, bridge := as(t, s, "service", "_RI.svc"), as(t, s, "bridge", "_RI.http")
		var ran atomic.Int32
		serve(t, service, "svc.secret", endpoint.New(func(ctx context.Context, r *AddRequest) (*AddResponse, error) {
			ran.Add(1)
			return add(ctx, r)
		}))
		for range 3 {
			timed(t, soon, func() {
				_, err := adder(bridge, "svc.secret")(t.Context(), &AddRequest{1, 2})
				failed(t, err, endpoint.PermissionDenied, endpoint.ReasonPublishDenied, endpoint.NotExecuted)
			})
		}
		assert.Equal(t, ran.Load(), int32(0))
	})
}
