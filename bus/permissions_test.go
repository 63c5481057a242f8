package bus_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// grants returns the text for users with passwords like their names, besides one who may do everything and is who doesn't
// say. A user may have several blocks; the last one counts.
func grants(users map[string]string) string {
	var b strings.Builder
	b.WriteString("no_auth_user: root, authorization { users: [\n{ user: root, password: root }\n")
	for name, text := range users {
		fmt.Fprintf(&b, "{ user: %s, password: %s\n%s}\n", name, name, text)
	}
	b.WriteString("] }\n")
	return b.String()
}

var roles = map[string]bus.Role{"service": bus.ServiceRole, "client": bus.ClientRole, "bridge": bus.BridgeRole, "discovery": bus.DiscoveryRole}

// What is printed is what the documentation shows, word for word.
func TestPermissionsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/protocol.md")
	assert.NoError(t, err)
	for name, r := range roles {
		var subjects []string
		if r == bus.BridgeRole {
			subjects = []string{"svc.add"}
		}
		text := bus.Permissions(r, "svc", subjects...)
		assert.True(t, strings.Contains(string(doc), "# "+name+"\n"+text), "docs/protocol.md lacks\n# "+name+"\n"+text)
	}
}

// Whatever is asked for, the broker reads just that, or refuses to start and names all faults.
func TestPermissionsAreReadBack(t *testing.T) {
	const odd = `a"b\.c{d}#;'$x`
	s := bustest.Server(t, unheard(), embedded.WithConfig(grants(map[string]string{
		"odd": bus.Permissions(bus.ClientRole, "svc", odd, "ünï.*.x"),
		"two": bus.Permissions(bus.ServiceRole, "acme-users", "acme.users.>", "acme.jobs workers"),
	})))
	denied := func(user string, f func(nc *nats.Conn) error) bool {
		t.Helper()
		nc := foreign(t, s, nats.UserInfo(user, user))
		assert.NoError(t, f(nc))
		assert.NoError(t, nc.Flush())
		return nc.LastError() != nil
	}
	publish := func(subject string) func(nc *nats.Conn) error {
		return func(nc *nats.Conn) error { return nc.Publish(subject, nil) }
	}
	join := func(subject, queue string) func(nc *nats.Conn) error {
		return func(nc *nats.Conn) error {
			_, err := nc.QueueSubscribeSync(subject, queue)
			return err
		}
	}
	for subject, want := range map[string]bool{
		odd: true, "ünï.a.x": true, "ünï.a.y": false, "svc.add": false, "_RPC.svc.ID.c.1": true, "_RPC.svc.ID.e." + odd: true,
		"_RPC.svc.ID.e.svc.add": false, "$SRV.PING": false, "_RI.svc.x": false, "$SYS.REQ.SERVER.PING": false,
	} {
		assert.Equal(t, !denied("odd", publish(subject)), want, subject)
	}
	for _, x := range []struct {
		subject, queue string
		want           bool
	}{
		{"acme.users.get", "q", true},
		{"acme.users.get", "other", false},
		{"acme.users.get", "", false},
		{"acme.jobs", "workers", true},
		{"acme.jobs", "q", false},
		{"acme-users.get", "q", false},
		{"_RPC.acme-users.ID.>", "", true},
		{"$SRV.INFO", "", true},
		{"$SRV.*.acme-users.ID", "", true},
		{"$SRV.*.other", "", false},
		{"$SRV.>", "", false},
		{"_RI.cli.>", "", false},
		{">", "", false},
	} {
		assert.Equal(t, !denied("two", join(x.subject, x.queue)), x.want, x.subject+" "+x.queue)
	}
}

func TestPermissionsRefuseWhatCannotBe(t *testing.T) {
	for _, x := range []struct {
		role     bus.Role
		service  string
		subjects []string
		faults   []string
	}{
		{bus.ServiceRole, "", nil, []string{"name is empty"}},
		{bus.ClientRole, "a.b", nil, []string{"a.b"}},
		{bus.ClientRole, "svc", []string{""}, []string{"subject is empty"}},
		{bus.ClientRole, "svc", []string{">"}, []string{"wildcard"}},
		{bus.ClientRole, "svc", []string{"*.add"}, []string{"wildcard"}},
		{bus.ClientRole, "svc", []string{"$SYS.>"}, []string{"$"}},
		{bus.ClientRole, "svc", []string{"_RI.>", "_RI"}, []string{`\"_RI.>\"`, `\"_RI\" lies under _RI`}},
		{bus.BridgeRole, "svc", []string{"svc.add q"}, []string{"queue group"}},
		{bus.ServiceRole, "svc", []string{"svc.add >", "svc.add a b", "svc.add "}, []string{"svc.add >", "svc.add a b", `svc.add \"`}},
		{bus.DiscoveryRole, "svc", []string{"svc.add"}, []string{"takes no subjects"}},
		{bus.Role(200), "a b", []string{"svc..add", "svc.\"}\r\n}"}, []string{"role 200", "a b", "svc..add", `}\\r\\n}`}},
	} {
		text := bus.Permissions(x.role, x.service, x.subjects...)
		_, err := embedded.Start(unheard(), embedded.WithConfig(grants(map[string]string{"u": text})))
		assert.True(t, err != nil, "the broker takes "+text)
		assert.Contains(t, err.Error(), "bus.Permissions")
		assert.Contains(t, text, x.faults...)
	}
}

// Whatever a subject is made of, the broker reads it as it was meant.
func TestPermissionsAreQuoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subject := rapid.String().Draw(t, "subject")
		if endpoint.ValidatePattern(subject) != nil || strings.ContainsAny(subject[:1], "*>") || strings.HasPrefix(subject, "_RI") {
			t.SkipNow()
		}
		var o server.Options
		if err := o.ProcessConfigString(grants(map[string]string{"u": bus.Permissions(bus.ClientRole, "svc", subject)})); err != nil {
			t.Fatal(err)
		}
		p := o.Users[1].Permissions
		want := []string{subject, "_RPC.svc.*.c.>", "_RPC.svc.*.e." + subject}
		if !slices.Equal(p.Publish.Allow, want) || !slices.Equal(p.Subscribe.Allow, []string{"_RI.cli.>"}) {
			t.Fatalf("%q %q", p.Publish.Allow, p.Subscribe.Allow)
		}
	})
}
