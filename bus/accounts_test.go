package bus_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The broker's topologies that change what a caller or a service sees: accounts, mappings, leaf nodes, gateways.

// exported is what a service's grants are in an account that exports it.
func exported(t testing.TB) string {
	t.Helper()
	const grant = `publish: { allow: ["_RI.>"`
	text := bus.Permissions(bus.ServiceRole, "svc")
	assert.Contains(t, text, grant, `"_R_.>"`)
	return strings.Replace(text, grant, grant+`, "_R_.>"`, 1)
}

// importing is what a client's grants are in an account that imports a service and its streams.
func importing(t testing.TB) string {
	t.Helper()
	text := bus.Permissions(bus.ClientRole, "svc")
	assert.Contains(t, text, `"_RPC.svc.>"] }`, `"_R_.>"`)
	return strings.Replace(text, `"_RPC.svc.>"] }`, `"_RPC.svc.>", "_R_.>"] }`, 1)
}

// accounts starts a server with a service's account that exports svc.> and a client's that imports it.
func accounts(t testing.TB, service, export, imported string) *embedded.Server {
	t.Helper()
	user := func(name, text string) string { return "{ user: " + name + ", password: " + name + "\n" + text + "}\n" }
	return bustest.Server(t, unheard(), embedded.WithConfig(`accounts {
		SVC {
			users: [`+user("service", service)+user("peer", "")+`]
			exports: [ { service: "svc.>", `+export+` }, { service: "$SRV.>", response_type: stream } ]
		}
		CLI {
			users: [`+user("client", both(t, bus.Permissions(bus.ClientRole, "svc"), bus.Permissions(bus.DiscoveryRole, "svc")))+
		user("streamer", importing(t))+user("root", "")+`]
			imports: [
				{ service: { account: SVC, subject: "svc.>" }, `+imported+` }
				{ service: { account: SVC, subject: "$SRV.>" } }
			]
		}
	}`))
}

// Limits of a handler as its context has them.
type limits struct {
	Left     time.Duration
	Instance string
}

// A service of another account is called like one of one's own. Only what rides in the reply subject is lost on the way,
// unless it is sent as headers.
func TestAcrossAccounts(t *testing.T) {
	for _, kind := range []string{"singleton", "stream"} {
		t.Run(kind, func(t *testing.T) {
			s := accounts(t, exported(t), "response_type: "+kind, "share: true")
			service := as(t, s, "service", "_RI.svc", content(t), bus.WithDefaultTimeout(time.Minute))
			serve(t, service, "svc.add", endpoint.New(add))
			serve(t, service, "svc.left", endpoint.New(func(ctx context.Context, _ *AddRequest) (*limits, error) {
				deadline, _ := ctx.Deadline()
				return &limits{Left: time.Until(deadline)}, nil
			}))
			respond(t, foreign(t, s, nats.UserInfo("peer", "peer")), "svc.peer", func(m *nats.Msg) {
				_ = m.Respond([]byte(m.Reply + " " + m.Header.Get("Nats-Request-Info")))
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for name, headers := range map[string]bool{"token": false, "headers": true} {
				opts := []bus.Option{content(t)}
				if headers {
					opts = append(opts, bus.WithHeaderMetadata())
				}
				client := as(t, s, "client", "_RI.cli", opts...)
				timed(t, soon, func() {
					got, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
					assert.NoError(t, err)
					assert.Equal(t, got.Sum, 3)
					_, err = adder(client, "svc.add")(ctx, &AddRequest{1, 13})
					failed(t, err, endpoint.FailedPrecondition, "", endpoint.Executed)
					_, err = adder(client, "svc.none")(ctx, &AddRequest{1, 13})
					e := failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
					assert.Contains(t, e.Message, "svc.none")
				})
				obs, report := endpoint.Observe(ctx)
				got, err := endpoint.Caller[*AddRequest, *limits](client, "svc.left")(obs, &AddRequest{})
				assert.NoError(t, err)
				assert.Equal(t, got.Left <= 10*time.Second, headers, name+": the deadline: "+got.Left.String())
				assert.Equal(t, report.Instance == service.ID(), headers, name+": the instance")
				reply, err := echoer(client, "svc.peer")(ctx, nil)
				assert.NoError(t, err)
				assert.True(t, strings.HasPrefix(string(reply), "_R_."), string(reply))
				assert.Contains(t, string(reply), `"acc":"CLI"`, `"user":"client"`)
				found, err := client.Discover(ctx, "svc")
				assert.NoError(t, err)
				assert.Equal(t, len(found), 1)
				assert.Equal(t, found[0].ID, service.ID())
			}
		})
	}
}

// Without the grant for _R_ a service can't answer across accounts, and says so in its log.
func TestAcrossAccountsWithoutTheGrant(t *testing.T) {
	s := accounts(t, bus.Permissions(bus.ServiceRole, "svc"), "response_type: singleton", "share: false")
	serve(t, as(t, s, "service", "_RI.svc"), "svc.add", endpoint.New(add))
	client := as(t, s, "client", "_RI.cli") // which may take longer than the call
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := adder(client, "svc.add")(ctx, &AddRequest{1, 2})
	failed(t, err, endpoint.DeadlineExceeded, "", endpoint.MaybeExecuted)
}

// An import may give a service another subject, and a mapping a request another one. Who is nobody is named as the broker
// knows it.
func TestMappedSubjects(t *testing.T) {
	s := accounts(t, exported(t), "response_type: singleton", `to: "shop.>"`)
	service := as(t, s, "service", "_RI.svc", content(t))
	serve(t, service, "svc.add", endpoint.New(add))
	client := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("root", "root")))
	got, err := adder(client, "shop.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 3)
	_, err = adder(client, "shop.none")(t.Context(), &AddRequest{1, 2})
	e := failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
	assert.Contains(t, e.Message, "shop.none")

	s = bustest.Server(t, unheard(), embedded.WithConfig(`mappings: { "old.*": "svc.{{wildcard(1)}}" }`))
	one, two := connect(t, s, quiet()), connect(t, s, quiet())
	serve(t, one, "svc.add", endpoint.New(add))
	got, err = adder(two, "old.add")(t.Context(), &AddRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, got.Sum, 3)
	timed(t, soon, func() {
		_, err = adder(two, "old.none")(t.Context(), &AddRequest{1, 2})
		e = failed(t, err, endpoint.Unavailable, endpoint.ReasonNoResponders, endpoint.NotExecuted)
		assert.Contains(t, e.Message, "svc.none")
	})
}

// A canary: a tenth of the calls goes to another subject, without anybody knowing.
func TestWeightedMapping(t *testing.T) {
	if eager() {
		t.Skip("a mapping of the subject has none of its frames")
	}
	s := bustest.Server(t, unheard(), embedded.WithConfig(
		`mappings: { "svc.add": [ { destination: "svc.add", weight: 90% }, { destination: "canary.add", weight: 10% } ] }`))
	b := connect(t, s, quiet())
	serve(t, b, "svc.add", endpoint.New(add))
	serve(t, b, "canary.add", endpoint.New(add))
	const calls = 500
	for range calls {
		_, err := adder(b, "svc.add")(t.Context(), &AddRequest{1, 2})
		assert.NoError(t, err)
	}
	n := statsOf(t, b, "canary.add").Calls
	assert.True(t, n > calls/50 && n < calls/4, fmt.Sprint(n))
}

// A broker starts with each configuration that docs/operations.md shows.
func TestOperationsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/operations.md")
	assert.NoError(t, err)
	blocks := strings.Split(string(doc), "```conf\n")[1:]
	assert.Equal(t, len(blocks), 3)
	for _, b := range blocks {
		text, _, ok := strings.Cut(b, "```\n")
		assert.True(t, ok, b)
		bustest.Server(t, embedded.WithConfig(text))
	}
}
