package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// kinds are the generations of the JavaScript client.
var kinds = []string{"nats", "transport-node"}

// script is a running node process that prints lines of JSON.
type script struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *json.Decoder
}

func startScript(t *testing.T, name string, args ...string) *script {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("skipped: node is not installed")
	}
	if _, err := os.Stat("js/node_modules"); err != nil {
		t.Skip("skipped: js/node_modules is not there; npm ci in js makes it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, node, append([]string{name}, args...)...)
	cmd.Dir = "js"
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	assert.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	assert.NoError(t, err)
	assert.NoError(t, cmd.Start())
	s := &script{cmd: cmd, stdin: stdin, out: json.NewDecoder(stdout)}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cancel()
			_ = cmd.Wait()
		}
	})
	return s
}

// next reads one line. It returns false at the end.
func (s *script) next(t *testing.T, line any) bool {
	t.Helper()
	err := s.out.Decode(line)
	if errors.Is(err, io.EOF) {
		return false
	}
	assert.NoError(t, err)
	return true
}

// stop asks a script to leave and waits until it did.
func (s *script) stop(t *testing.T) {
	t.Helper()
	assert.NoError(t, s.stdin.Close())
	var line any
	for s.next(t, &line) {
		t.Log(line)
	}
	assert.NoError(t, s.cmd.Wait())
}

// step is a line of client.mjs: what one of its steps found.
type step struct {
	Step  string
	Value json.RawMessage
}

type steps map[string]json.RawMessage

func (s steps) read(t *testing.T, step string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(s[step])))
	d.DisallowUnknownFields() // answers of discovery have ADR-32's fields and no others
	assert.NoError(t, d.Decode(v), step)
}

type jsReply struct {
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
}

func TestJS_calls(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := broker(t)
			var ids []string
			for range 2 {
				b := connect(t, url, bus.WithVersion("1.4.0"), bus.WithDescription("a calculator"), bus.WithMetadata(map[string]string{"team": "math"}))
				serve(t, b, "svc.add", endpoint.New(add, endpoint.Doc("adds two numbers")))
				serve(t, b, "svc.slow", endpoint.New(slow))
				serve(t, b, "svc.all", endpoint.New(add, endpoint.Queue("")))
				ids = append(ids, b.ID())
			}
			slices.Sort(ids)
			client, found := startScript(t, "client.mjs", kind, url), steps{}
			for line := (step{}); client.next(t, &line); line = (step{}) {
				found[line.Step] = line.Value
			}
			client.stop(t)
			t.Run("discovery", func(t *testing.T) { discovered(t, found, ids) })
			t.Run("success", func(t *testing.T) { succeeded(t, found) })
			t.Run("failure", func(t *testing.T) { failed(t, found) })
			t.Run("many replies", func(t *testing.T) { repliedMany(t, found) })
		})
	}
}

// discovered checks what the client's PING, INFO and STATS returned, for all, a name and an instance.
func discovered(t *testing.T, found steps, ids []string) {
	for step, want := range map[string]int{"ping": 2, "ping name": 2, "ping id": 1} {
		var pings []micro.Ping
		found.read(t, step, &pings)
		assert.Equal(t, len(pings), want, step)
		for _, p := range pings {
			assert.Equal(t, p.Type, micro.PingResponseType)
			identified(t, p.ServiceIdentity, ids)
		}
	}
	for step, want := range map[string]int{"info": 2, "info id": 1} {
		var infos []micro.Info
		found.read(t, step, &infos)
		assert.Equal(t, len(infos), want, step)
		for _, i := range infos {
			identified(t, i.ServiceIdentity, ids)
			assert.Equal(t, i.Description, "a calculator")
			assert.Equal(t, len(i.Endpoints), 3)
			e := i.Endpoints[0]
			assert.Equal(t, []string{e.Name, e.Subject, e.QueueGroup, e.Metadata["rpc.doc"]}, []string{"add", "svc.add", "q", "adds two numbers"})
		}
	}
	var stats []micro.Stats
	found.read(t, "stats", &stats)
	requests, errs := 0, 0
	for _, s := range stats {
		identified(t, s.ServiceIdentity, ids)
		assert.True(t, !s.Started.IsZero(), "started")
		e := s.Endpoints[0]
		assert.Equal(t, e.Subject, "svc.add")
		assert.True(t, e.AverageProcessingTime > 0, "both instances worked")
		requests += e.NumRequests
		errs += e.NumErrors
	}
	assert.Equal(t, []int{len(stats), requests, errs}, []int{2, 54, 2})
}

func identified(t *testing.T, got micro.ServiceIdentity, ids []string) {
	t.Helper()
	assert.True(t, slices.Contains(ids, got.ID), "a known instance")
	got.ID = ""
	assert.Equal(t, got, micro.ServiceIdentity{Name: "svc", Version: "1.4.0", Metadata: map[string]string{"team": "math"}})
}

func succeeded(t *testing.T, found steps) {
	var r jsReply
	found.read(t, "add", &r)
	assert.Equal(t, r, jsReply{`{"sum":3}`, map[string]string{}}, "no header was sent, none comes back")
	r = jsReply{}
	found.read(t, "headers", &r)
	assert.Equal(t, r, jsReply{`{"sum":3}`, map[string]string{"X-Tenant": "acme"}})
	var many []jsReply
	found.read(t, "many at once", &many)
	for i, r := range many {
		var sum addResponse
		assert.NoError(t, json.Unmarshal([]byte(r.Body), &sum))
		assert.Equal(t, sum.Sum, i+1)
	}
	assert.Equal(t, len(many), 50)
}

func failed(t *testing.T, found steps) {
	for _, want := range []struct{ step, number, code, text, outcome string }{
		{"not found", "404", "not_found", "there is no 13", ""},
		{"malformed", "400", "invalid_argument", "malformed request", "not_executed"},
		{"late", "504", "deadline_exceeded", "", ""},
	} {
		var r jsReply
		found.read(t, want.step, &r)
		assert.Equal(t, r.Headers["Nats-Service-Error-Code"], want.number, want.step)
		assert.Contains(t, r.Headers["Nats-Service-Error"], want.text)
		assert.True(t, r.Headers["Nats-Service-Error"] != "", "there is a text")
		assert.Equal(t, r.Headers["Rpc-Code"], want.code)
		assert.Equal(t, r.Headers["Rpc-Outcome"], want.outcome)
		assert.Contains(t, r.Body, `"code":"`+want.code+`"`, want.text)
	}
	var r struct{ NoResponders bool }
	found.read(t, "nobody", &r)
	assert.True(t, r.NoResponders, "nobody serves it, and the client knows")
}

func repliedMany(t *testing.T, found steps) {
	for _, step := range []string{"many count", "many stall", "many timer"} {
		var bodies []string
		found.read(t, step, &bodies)
		assert.Equal(t, bodies, []string{`{"sum":4}`, `{"sum":4}`}, step)
	}
}

func TestJS_isCalled(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := broker(t)
			b := connect(t, url)
			js, id := startService(t, kind, url)
			t.Run("discovery", func(t *testing.T) { discoversJS(t, b, id) })
			t.Run("calls", func(t *testing.T) { callsJS(t, b) })
			t.Run("queue group", func(t *testing.T) { sharesWithJS(t, url, b, js) })
		})
	}
}

func startService(t *testing.T, kind, url string) (s *script, id string) {
	t.Helper()
	s = startScript(t, "service.mjs", kind, url)
	var line struct {
		Ready bool
		ID    string
	}
	assert.True(t, s.next(t, &line) && line.Ready, "the service runs")
	return s, line.ID
}

func discoversJS(t *testing.T, b *bus.Bus, id string) {
	discover(t, b, "", 2) // JsSvc and mix
	i := discover(t, b, "JsSvc", 1)[0]
	assert.Equal(t, []string{i.Service, i.ID, i.Version, i.Description, i.Metadata["lang"]}, []string{"JsSvc", id, "1.2.3", "in JavaScript", "js"})
	var subjects []string
	for _, e := range i.Endpoints {
		assert.Equal(t, e.Queue, "q")
		subjects = append(subjects, e.Subject)
	}
	assert.Equal(t, subjects, []string{"js.add", "js.fail", "js.throw"})
	assert.Equal(t, i.Endpoints[0].Metadata["doc"], "adds")
}

func callsJS(t *testing.T, b *bus.Bus) {
	call := endpoint.Caller[*addRequest, *addResponse](b, "js.add")
	sum, err := call(t.Context(), &addRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, sum.Sum, 3)

	ctx, report := endpoint.Observe(endpoint.WithHeader(t.Context(), "X-Tenant", "acme"))
	_, err = call(ctx, &addRequest{1, 2})
	assert.NoError(t, err)
	assert.Equal(t, report.Reply.Get("X-Tenant"), "acme")

	fail := endpoint.Caller[*jsFailure, *none](b, "js.fail")
	for number, code := range map[int]endpoint.Code{
		400: endpoint.InvalidArgument, 403: endpoint.PermissionDenied, 404: endpoint.NotFound, 429: endpoint.ResourceExhausted,
		503: endpoint.Unavailable, 7: endpoint.Unknown,
	} {
		_, err := fail(t.Context(), &jsFailure{number, "said in JavaScript"})
		executed(t, err, code, "said in JavaScript")
	}
	_, err = endpoint.Caller[*none, *none](b, "js.throw")(t.Context(), &none{})
	executed(t, err, endpoint.Internal, "boom")
	_, err = endpoint.Caller[*none, *none](b, "js.nobody")(t.Context(), &none{})
	assert.ErrorIs(t, err, endpoint.Unavailable)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotExecuted)
}

type jsFailure struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

// sharesWithJS joins the JavaScript service's queue group, and stays when it leaves.
func sharesWithJS(t *testing.T, url string, caller *bus.Bus, js *script) {
	serve(t, connect(t, url), "mix.who", endpoint.New(func(context.Context, *none) (*who, error) { return &who{"postbus"}, nil }))
	count := shares(t, caller, "mix.who", 200)
	assert.True(t, count["js"] >= 40 && count["postbus"] >= 40, "both have a fair share")
	js.stop(t)
	assert.Equal(t, shares(t, caller, "mix.who", 20), map[string]int{"postbus": 20})
}
