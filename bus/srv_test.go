package bus_test

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// The three schemas say what ADR-32 says. One responder that breaks them breaks the listing of the whole account.
//
//go:embed testdata/*_response.json
var schemas embed.FS

func schema(t *testing.T, verb string) *jsonschema.Resolved {
	t.Helper()
	text, err := schemas.ReadFile("testdata/" + strings.ToLower(verb) + "_response.json")
	assert.NoError(t, err)
	var s jsonschema.Schema
	assert.NoError(t, json.Unmarshal(text, &s))
	r, err := s.Resolve(nil)
	assert.NoError(t, err)
	return r
}

// shape writes down the keys and types of a JSON value. Objects whose keys are data have no shape of their own.
func shape(path string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		out[path] = "object"
		if strings.HasSuffix(path, ".metadata") || strings.HasSuffix(path, ".data") {
			return
		}
		for k, e := range v {
			shape(path+"."+k, e, out)
		}
	case []any:
		out[path] = "array"
		for _, e := range v {
			shape(path+"[]", e, out)
		}
	default:
		out[path] = fmt.Sprintf("%T", v)
	}
}

func TestVerbsEqualMicros(t *testing.T) {
	s := bustest.Server(t, unheard())
	md := map[string]string{"zone": "a"}
	b := connect(t, s, quiet(), bus.WithName("ours"), bus.WithVersion("1.2.3"), bus.WithDescription("what it does"), bus.WithMetadata(md))
	serve(t, b, "ours.add", endpoint.New(add, endpoint.Meta("k", "v")))
	nc := foreign(t, s)
	m, err := micro.AddService(nc, micro.Config{Name: "micros", Version: "1.2.3", Description: "what it does", Metadata: md})
	assert.NoError(t, err)
	t.Cleanup(func() { _ = m.Stop() })
	assert.NoError(t, m.AddEndpoint("add", micro.HandlerFunc(func(r micro.Request) { _ = r.Error("400", "unlucky", nil) }),
		micro.WithEndpointSubject("micros.add"), micro.WithEndpointMetadata(map[string]string{"k": "v"})))
	assert.NoError(t, nc.Flush())
	for _, subject := range []string{"ours.add", "micros.add"} { // one good or bad call each, so that statistics have content
		request(t, nc, subject, `{"A":1,"B":13}`)
	}
	assert.Eventually(t, func() bool { return statsOf(t, b, "ours.add").Calls == 1 })
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		valid := schema(t, verb)
		for _, form := range []string{"$SRV.%s", "$SRV.%s.NAME", "$SRV.%s.NAME.ID"} {
			ask := func(name, id string) map[string]string {
				t.Helper()
				subject := strings.NewReplacer("NAME", name, "ID", id).Replace(fmt.Sprintf(form, verb))
				for _, body := range answers(t, nc, subject) {
					var v map[string]any
					assert.NoError(t, json.Unmarshal(body, &v), string(body))
					if v["name"] != name {
						continue
					}
					assert.Equal(t, v["id"], any(id))
					assert.Equal(t, v["version"], any("1.2.3"))
					assert.Equal(t, fmt.Sprint(v["metadata"]), "map[zone:a]")
					if name == "ours" {
						assert.NoError(t, valid.Validate(v), string(body))
					}
					keys := map[string]string{}
					shape("", v, keys)
					delete(keys, ".endpoints[].data")
					return keys
				}
				t.Fatalf("%s: %s did not answer", subject, name)
				return nil
			}
			assert.Equal(t, ask("ours", b.ID()), ask("micros", m.Info().ID), verb+" "+form)
		}
	}
}

// answers collects what comes within a short silence.
func answers(t *testing.T, nc *nats.Conn, subject string) (bodies [][]byte) {
	t.Helper()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	assert.NoError(t, err)
	defer func() { _ = sub.Unsubscribe() }()
	assert.NoError(t, nc.PublishRequest(subject, inbox, nil))
	for {
		m, err := sub.NextMsg(100 * time.Millisecond)
		if err != nil {
			return bodies
		}
		bodies = append(bodies, m.Data)
	}
}

// Who floods the verbs gets little for it, takes nothing from other services, and does not make the bus unready.
func TestVerbsAreRationed(t *testing.T) {
	const services = 30
	s := bustest.Server(t, unheard())
	b := connect(t, s, quiet())
	for i := range services {
		serve(t, b, fmt.Sprintf("svc%d.add", i), endpoint.New(add))
	}
	caller := connect(t, s, quiet())
	found, err := caller.Discover(t.Context(), "")
	assert.NoError(t, err)
	assert.Equal(t, len(found), services, "a listing is complete")

	nc := foreign(t, s)
	var heard atomic.Int32
	respond(t, nc, "sink", func(*nats.Msg) { heard.Add(1) })
	start := time.Now()
	for range 2000 {
		for _, verb := range []string{"INFO", "STATS", "PING"} {
			assert.NoError(t, nc.PublishRequest("$SRV."+verb+".svc0", "sink", nil))
		}
	}
	assert.NoError(t, nc.Flush())
	for range 30 {
		assert.NoError(t, b.Ready(t.Context()))
	}
	assert.NoError(t, nc.Flush())
	most := 20 + int32(20*time.Since(start)/time.Second) + 1
	got := heard.Load()
	assert.True(t, got > 0 && got <= most, fmt.Sprint(got, " answers, at most ", most))
	_, err = nc.Request("$SRV.INFO.svc1", nil, 10*time.Second)
	assert.NoError(t, err)
}

// What has nothing to say is still valid.
func TestVerbsOfAnEmptyServiceAreValid(t *testing.T) {
	b := alone(t, quiet())
	serve(t, b, "svc.add", endpoint.New(add))
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		m, err := b.Conn().Request("$SRV."+verb+".svc."+b.ID(), nil, 10*time.Second)
		assert.NoError(t, err)
		var v map[string]any
		assert.NoError(t, json.Unmarshal(m.Data, &v))
		assert.NoError(t, schema(t, verb).Validate(v), string(m.Data))
		_, object := v["metadata"].(map[string]any)
		assert.True(t, object, "metadata is an object, also without any")
	}
	_, err := b.Conn().Request("$SRV.DANCE.svc."+b.ID(), nil, 50*time.Millisecond)
	assert.ErrorIs(t, err, nats.ErrTimeout, "unknown verbs are ignored")
}

func TestSchemasCanFail(t *testing.T) {
	good := map[string]string{
		"PING":  `{"type":"io.nats.micro.v1.ping_response","name":"a","id":"b","version":"1.0.0","metadata":{}}`,
		"INFO":  `{"type":"io.nats.micro.v1.info_response","name":"a","id":"b","version":"1.0.0","metadata":{},"description":"","endpoints":[]}`,
		"STATS": `{"type":"io.nats.micro.v1.stats_response","name":"a","id":"b","version":"1.0.0","metadata":{},"started":"2026-01-02T03:04:05Z","endpoints":[]}`,
	}
	for verb, text := range good {
		valid := schema(t, verb)
		check := func(edit func(map[string]any)) error {
			var v map[string]any
			assert.NoError(t, json.Unmarshal([]byte(text), &v))
			edit(v)
			return valid.Validate(v)
		}
		assert.NoError(t, check(func(map[string]any) {}), verb)
		var keys map[string]any
		assert.NoError(t, json.Unmarshal([]byte(text), &keys))
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			assert.True(t, check(func(v map[string]any) { delete(v, k) }) != nil, verb+" without "+k)
			assert.True(t, check(func(v map[string]any) { v[k] = 1 }) != nil, verb+" with a number for "+k)
		}
		assert.True(t, check(func(v map[string]any) { v["name"] = "a.b" }) != nil, "a name with a dot")
		assert.True(t, check(func(v map[string]any) { v["version"] = "v1" }) != nil, "no semantic version")
	}
}

func TestStatsCount(t *testing.T) {
	service, caller, s := pair(t)
	serve(t, service, "svc.add", endpoint.New(add))
	sum := adder(caller, "svc.add")
	for i := range 10 {
		_, _ = sum(t.Context(), &AddRequest{1, 5 + 8*(i%2)}) // every other one is unlucky
	}
	assert.Eventually(t, func() bool { return statsOf(t, service, "svc.add").Calls == 10 })
	var got micro.Stats
	assert.NoError(t, json.Unmarshal(request(t, foreign(t, s), "$SRV.STATS.svc", "").Data, &got))
	e := got.Endpoints[0]
	assert.Equal(t, fmt.Sprint(e.Name, e.Subject, e.QueueGroup, e.NumRequests, e.NumErrors), "addsvc.addq10 5")
	assert.Contains(t, e.LastError, "failed_precondition")
	assert.True(t, e.ProcessingTime > 0 && e.AverageProcessingTime == e.ProcessingTime/10, "times")
	var data struct {
		InFlight  int64    `json:"in_flight"`
		P99       int64    `json:"p99_ns"`
		Histogram []uint64 `json:"histogram"`
	}
	assert.NoError(t, json.Unmarshal(e.Data, &data))
	total := uint64(0)
	for _, n := range data.Histogram {
		total += n
	}
	assert.True(t, total == 10 && data.P99 > 0 && data.InFlight == 0, string(e.Data))
	assert.True(t, time.Since(got.Started) < time.Minute && got.Started.Location() == time.UTC, "started")
}

func TestMixedQueueGroupWithMicro(t *testing.T) {
	if eager() {
		t.Skip("a service of another make takes no frames")
	}
	const calls = 400
	s := bustest.Server(t, unheard())
	service, caller := connect(t, s, quiet(), bus.WithCodec(codec.Raw)), connect(t, s, quiet())
	var ours, micros atomic.Int32
	serve(t, service, "svc.echo", rawEndpoint(func(_ context.Context, r []byte) ([]byte, error) {
		ours.Add(1)
		return r, nil
	}))
	nc := foreign(t, s)
	m, err := micro.AddService(nc, micro.Config{Name: "svc", Version: "1.0.0"})
	assert.NoError(t, err)
	t.Cleanup(func() { _ = m.Stop() })
	assert.NoError(t, m.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) {
		micros.Add(1)
		if string(r.Data()) == "fail" {
			_ = r.Error("404", "not here", nil)
			return
		}
		_ = r.Respond(r.Data())
	}), micro.WithEndpointSubject("svc.echo")))
	assert.NoError(t, nc.Flush())
	for i := range calls {
		body := fmt.Sprint(i)
		got, err := echoer(caller, "svc.echo")(t.Context(), []byte(body))
		assert.NoError(t, err)
		assert.Equal(t, string(got), body)
		assert.Equal(t, string(request(t, nc, "svc.echo", body).Data), body)
	}
	t.Logf("ours %d, micro's %d", ours.Load(), micros.Load())
	assert.Equal(t, ours.Load()+micros.Load(), int32(2*calls))
	assert.True(t, ours.Load() > calls/2 && micros.Load() > calls/2, "the load is shared")
	assert.NoError(t, service.Stop(t.Context(), "svc.echo"))
	_, err = echoer(caller, "svc.echo")(t.Context(), []byte("fail"))
	e := failed(t, err, endpoint.NotFound, "", endpoint.Executed)
	assert.Equal(t, e.Message, "not here")
}
