package bus_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Messages with schemas of some 3,500 and 9,000 bytes, and one with characters that JSON may write in two ways.
type (
	Wide    struct{ A int }
	Wider   struct{ A int }
	Escaped struct{ A int }
)

func (Wide) JSONSchema() json.RawMessage { return long(3500, "a") }

func (Wider) JSONSchema() json.RawMessage { return long(9000, "a") }

func (Escaped) JSONSchema() json.RawMessage { return long(1000, ` <&> ü\u2028`) }

func long(n int, of string) json.RawMessage {
	return fmt.Appendf(nil, `{ "type": "object",  "description": "%s" }`, strings.Repeat(of, n/len(of)))
}

func wide(_ context.Context, r *Wide) (*Wide, error)              { return r, nil }
func wider(_ context.Context, _ *Wider) (*AddResponse, error)     { return &AddResponse{}, nil }
func escaped(_ context.Context, _ *Escaped) (*AddResponse, error) { return &AddResponse{}, nil }

func metadata(t *testing.T, b *bus.Bus, nc *nats.Conn, subject string) map[string]string {
	t.Helper()
	m := request(t, nc, "$SRV.INFO.svc."+b.ID(), "")
	var v any
	assert.NoError(t, json.Unmarshal(m.Data, &v))
	assert.NoError(t, schema(t, "INFO").Validate(v), string(m.Data))
	var info micro.Info
	assert.NoError(t, json.Unmarshal(m.Data, &info))
	for _, e := range info.Endpoints {
		if e.Subject == subject {
			return e.Metadata
		}
	}
	t.Fatalf("%s is not in %s", subject, m.Data)
	return nil
}

// What an instance publishes stands in golden files, schemas inline and by reference.
func TestPublishedMetadata(t *testing.T) {
	if os.Getenv(framesEnv) == "off" {
		t.Skip("it looks for the feature")
	}
	service, _, s := pair(t)
	nc := foreign(t, s)
	serve(t, service, "svc.add", endpoint.New(add, endpoint.Doc("adds"), endpoint.ReadOnly(), endpoint.Timeout(2*time.Second),
		endpoint.Meta("team", "x"), endpoint.ErrorValue("unlucky", endpoint.FailedPrecondition, context.Canceled)))
	serve(t, service, "svc.wide", endpoint.New(wide))
	serve(t, service, "svc.wider", endpoint.New(wider))
	for _, subject := range []string{"svc.add", "svc.wide", "svc.wider"} {
		got, err := json.MarshalIndent(metadata(t, service, nc, subject), "", "  ")
		assert.NoError(t, err)
		got = append(got, '\n')
		file := "testdata/metadata/" + subject + ".json"
		if *update {
			assert.NoError(t, os.WriteFile(file, got, 0o600))
		}
		want, err := os.ReadFile(file)
		assert.NoError(t, err, "write it with -update")
		assert.Equal(t, string(got), string(want))
	}
}

func TestSchemasByReference(t *testing.T) {
	service, caller, s := pair(t)
	nc := foreign(t, s)
	serve(t, service, "svc.wide", endpoint.New(wide)) // leaves some 1,000 bytes
	serve(t, service, "svc.escaped", endpoint.New(escaped))
	inline, referred := metadata(t, service, nc, "svc.wide"), metadata(t, service, nc, "svc.escaped")
	hash := referred["rpc.request"]
	assert.True(t, strings.HasPrefix(inline["rpc.request"], "{") && strings.HasPrefix(hash, "sha256:"), hash)
	assert.True(t, strings.HasPrefix(referred["rpc.response"], "{"), "for a small one there is room")

	m := request(t, nc, "$SRV.SCHEMA.svc."+service.ID(), "svc.escaped")
	assert.Equal(t, len(m.Header), 0)
	var answer struct {
		Subject           string
		Request, Response json.RawMessage
	}
	assert.NoError(t, json.Unmarshal(m.Data, &answer))
	assert.Equal(t, answer.Subject, "svc.escaped")
	assert.Equal(t, fmt.Sprintf("sha256:%x", sha256.Sum256(answer.Request)), hash, "of the bytes in the answer")
	assert.Equal(t, string(answer.Response), referred["rpc.response"])
	var js jsonschema.Schema
	assert.NoError(t, json.Unmarshal(answer.Request, &js))
	assert.Contains(t, js.Description, " <&> ü\u2028")

	m = request(t, nc, "$SRV.SCHEMA.svc."+service.ID(), "svc.none")
	assert.Equal(t, m.Header.Get("Rpc-Code"), "not_found")
	assert.Equal(t, m.Header.Get("Nats-Service-Error-Code"), "404")
	assert.Equal(t, m.Header.Get("Rpc-Outcome"), "not_executed")

	found, err := caller.Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, string(found[0].Endpoints[1].Request), string(answer.Request), "fetched")
	assert.Equal(t, found[0].Endpoints[1].Metadata["rpc.request"], hash)
	found, err = caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(found[0].Endpoints[1].Request), 0, "not for all")
	assert.True(t, len(found[0].Endpoints[0].Request) > 0, "inline")
	assert.Equal(t, caller.Slots(), 0)

	// Who leaves makes room.
	assert.NoError(t, service.Stop(t.Context(), "svc.wide"))
	serve(t, service, "svc.wide2", endpoint.New(wide))
	assert.True(t, strings.HasPrefix(metadata(t, service, nc, "svc.wide2")["rpc.response"], "{"), "room again")
}

// An INFO holds no more than 8 KiB of schemas, less where the broker takes little; what can't be fetched is not served.
func TestSchemasHaveTheirRoom(t *testing.T) {
	for payload, inline := range map[int]int{1 << 20: 8 << 10, 10 << 10: 5 << 10} {
		service, _, s := pair(t, embedded.WithMaxPayload(payload))
		nc := foreign(t, s)
		most := 0
		for i := range 5 {
			subject := fmt.Sprintf("svc.wide%d", i)
			serve(t, service, subject, endpoint.New(wide))
			md := metadata(t, service, nc, subject)
			for _, key := range []string{"rpc.request", "rpc.response"} {
				if strings.HasPrefix(md[key], "{") {
					most += len(md[key])
				}
			}
		}
		assert.True(t, most > inline/3 && most <= inline, fmt.Sprint(most, " of ", inline))
	}
	service, _, _ := pair(t, embedded.WithMaxPayload(5<<10))
	failed(t, service.Serve("svc.wider", endpoint.New(wider)), endpoint.InvalidArgument, endpoint.ReasonConstruction, endpoint.NotSent)
	serve(t, service, "svc.add", endpoint.New(add))
}

// Each schema is fetched but once, for all endpoints of all instances.
func TestSchemasAreFetchedOnce(t *testing.T) {
	const n = 30
	s := least(t, func(users map[string]string) { users["client"] = both(t, users["client"], users["discovery"]) })
	caller := as(t, s, "client", "_RI.cli", content(t))
	var asked atomic.Int32
	respond(t, foreign(t, s), "$SRV.SCHEMA.>", func(*nats.Msg) { asked.Add(1) })
	one, two := as(t, s, "service", "_RI.svc"), as(t, s, "service", "_RI.svc")
	for _, b := range []*bus.Bus{one, two} {
		for i := range n {
			serve(t, b, fmt.Sprintf("svc.wide%d", i), endpoint.New(wide))
			serve(t, b, fmt.Sprintf("svc.wider%d", i), endpoint.New(wider))
		}
	}
	found, err := caller.Discover(t.Context(), "svc")
	assert.NoError(t, err)
	assert.Equal(t, len(found), 2)
	for _, i := range found {
		for _, e := range i.Endpoints {
			assert.True(t, len(e.Request) > 0 && len(e.Response) > 0, i.ID+" "+e.Subject)
		}
	}
	assert.True(t, asked.Load() <= 3, fmt.Sprint(asked.Load()))
}

// Whoever answers decides what is in an answer. It is the schema that was announced, or none.
func TestSchemasAreWhatWasAnnounced(t *testing.T) {
	_, caller, s := pair(t)
	nc := foreign(t, s)
	hash := func(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
	const good, late = `{"type":"null"}`, `{"type":"number"}`
	info := func(id string, subjects ...string) string {
		var eps []string
		for _, subject := range subjects {
			of := map[string]string{"svc.good": hash(good), "svc.late": hash(late)}[subject]
			if of == "" {
				of = hash(subject)
			}
			eps = append(eps, fmt.Sprintf(`{"name":"x","subject":%q,"metadata":{"rpc.request":%q}}`, subject, of))
		}
		return fmt.Sprintf(`{"type":"io.nats.micro.v1.info_response","name":"svc","id":%q,"version":"1.0.0","endpoints":[%s]}`, id, strings.Join(eps, ","))
	}
	respond(t, nc, "$SRV.INFO.svc", func(m *nats.Msg) {
		_ = m.Respond([]byte(info("LIES", "svc.good", "svc.false", "svc.garbage", "svc.other")))
		_ = m.Respond([]byte(info("MUTE", "svc.good", "svc.a", "svc.b", "svc.c", "svc.d", "svc.e", "svc.f")))
		_ = m.Respond([]byte(info("TRUE", "svc.good", "svc.late")))
	})
	respond(t, nc, "$SRV.SCHEMA.svc.LIES", func(m *nats.Msg) {
		switch string(m.Data) {
		case "svc.good", "svc.false":
			_ = m.Respond(fmt.Appendf(nil, `{"subject":%q,"request":{"type":"string"}}`, m.Data))
		case "svc.garbage":
			_ = m.Respond([]byte(`{`))
		default:
			_ = m.Respond([]byte(`{"subject":"svc.good","request":{"type":"null"}}`))
		}
	})
	respond(t, nc, "$SRV.SCHEMA.svc.MUTE", func(*nats.Msg) {})
	var first atomic.Bool
	respond(t, nc, "$SRV.SCHEMA.svc.TRUE", func(m *nats.Msg) {
		switch {
		case string(m.Data) == "svc.good":
			_ = m.Respond([]byte(`{"subject":"svc.good","request":` + good + `}`))
		case first.Swap(true): // the first question is lost
			_ = m.Respond([]byte(`{"subject":"svc.late","request":` + late + `}`))
		}
	})
	timed(t, 2*soon, func() {
		found, err := caller.Discover(t.Context(), "svc")
		assert.NoError(t, err)
		assert.Equal(t, len(found), 3)
		for _, i := range found {
			for _, e := range i.Endpoints {
				if want := e.Subject == "svc.good" || e.Subject == "svc.late"; (len(e.Request) > 0) != want {
					t.Errorf("%s %s: %s", i.ID, e.Subject, e.Request)
				}
			}
		}
	})
	assert.True(t, own(caller).Malformed >= 3, "counted")
	assert.Equal(t, caller.Slots(), 0)
}

// Without permission to fetch them schemas stay unknown, at once.
func TestSchemasDenied(t *testing.T) {
	s := bustest.Server(t, unheard(), embedded.WithUsers(
		embedded.User{Name: "u", Password: "p", Publish: embedded.Permission{Deny: []string{"$SRV.SCHEMA.>"}}}))
	b := connect(t, s, quiet(), bus.WithNATS(nats.UserInfo("u", "p")))
	serve(t, b, "svc.wider", endpoint.New(wider))
	timed(t, 1500*time.Millisecond, func() {
		found, err := b.Discover(t.Context(), "svc")
		assert.NoError(t, err)
		assert.Equal(t, len(found[0].Endpoints[0].Request), 0)
		assert.True(t, len(found[0].Endpoints[0].Response) > 0, "inline")
	})
}

type Plain struct{ A int }

func (Plain) JSONSchema() json.RawMessage { return json.RawMessage(`{"type":"object"}`) }

// The answer is what docs/protocol.md shows.
func TestSchemaAnswerIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/protocol.md")
	assert.NoError(t, err)
	service, _, s := free(t)
	serve(t, service, "orders.place", endpoint.New(func(_ context.Context, r *Plain) (*Plain, error) { return r, nil }))
	m := request(t, foreign(t, s), "$SRV.SCHEMA.orders."+service.ID(), "orders.place")
	assert.Contains(t, string(doc), "\n\norders.place\n", "\n\n"+string(m.Data)+"\n")
}
