package interop_test

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"postbus.example/endpoint"
	"postbus.example/examples/addsvc"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// oapiCodegen is the generator of Go clients, and what its clients import.
const (
	oapiCodegen = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"
	oapiRuntime = "github.com/oapi-codegen/runtime@v1.9.0"
)

func total(_ context.Context, in iter.Seq2[*addResponse, error]) (*addResponse, error) {
	all := &addResponse{}
	for r, err := range in {
		if err != nil {
			return nil, err
		}
		all.Sum += r.Sum
	}
	return all, nil
}

// tree is a schema that refers to itself, and has a word of the bridge's own documents for a name.
type tree struct {
	Leaf     *string         `json:"leaf"`
	Branches map[string]tree `json:"branches,omitempty"`
	When     time.Time       `json:"when"`
	Blob     []byte          `json:"blob,omitempty"`
	Any      any             `json:"any"`
}

// documented is a bridge in front of addsvc and of endpoints of all sorts, with routes to some.
func documented(t *testing.T) (url string) {
	t.Helper()
	nats := broker(t)
	b := connect(t, nats)
	serve(t, b, "addsvc", endpoint.Service(addsvc.New()))
	serve(t, b, "num.count", endpoint.NewServerStream(countUp, endpoint.ReadOnly(), endpoint.Doc("counts")))
	serve(t, b, "num.collect", endpoint.NewClientStream(total))
	serve(t, b, "num.tree", endpoint.New(func(_ context.Context, r *tree) (*tree, error) { return r, nil }))
	foreign(t, nats)
	bridge := httpbridge.New(connect(t, nats),
		httpbridge.Expose("addsvc.*", "num.*", "js.*"), httpbridge.WithJSONRPC(""),
		httpbridge.Route("GET /v1/sums/{a}", "addsvc.sum"), httpbridge.Route("PUT /v1/sums/{b}", "addsvc.sum"),
		httpbridge.WithOpenAPI(httpbridge.Info{
			Title: "Interop", Version: "1.0.0", Description: "Everything that the tests serve.",
			Contact: json.RawMessage(`{"name":"Nobody"}`), License: json.RawMessage(`{"name":"MIT","identifier":"MIT"}`),
			Security: map[string]json.RawMessage{"key": json.RawMessage(`{"type":"apiKey","in":"header","name":"X-Key"}`)},
		}))
	assert.NoError(t, bridge.Err())
	web := httptest.NewServer(bridge)
	t.Cleanup(web.Close)
	return web.URL
}

// foreign is a service of other make, which publishes what it likes.
func foreign(t *testing.T, nats string) {
	t.Helper()
	s, err := micro.AddService(plain(t, nats), micro.Config{Name: "foreign", Version: "1.0.0", Description: "not ours"})
	assert.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	echo := micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) })
	for subject, schema := range map[string]string{
		"js.none":   "",
		"js.broken": `{"type":`,
		"js.odd":    `{"type":"any","nullable":true,"required":true,"properties":{"a":{"$ref":"https://example.com/a.json"},"b":7},"$id":"x","items":[1]}`,
		"js.good":   `{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/Word","definitions":{"Word":{"type":"object","properties":{"word":{"type":"string","examples":["hello"]}}}}}`,
	} {
		assert.NoError(t, s.AddEndpoint(strings.TrimPrefix(subject, "js."), echo, micro.WithEndpointSubject(subject),
			micro.WithEndpointMetadata(map[string]string{"rpc.request": schema, "rpc.response": schema, "rpc.doc": "Says <b>it</b> again."})))
	}
}

// document writes the OpenAPI document of a version to a file.
func document(t *testing.T, url, version string) (file string) {
	t.Helper()
	resp, err := http.Get(url + "/openapi.json?v=" + version)
	assert.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	assert.Equal(t, resp.StatusCode, 200, string(data))
	file = filepath.Join(t.TempDir(), "openapi.json")
	assert.NoError(t, os.WriteFile(file, data, 0o600))
	return file
}

// tool runs a program of the npm packages below openapi, in a directory.
func tool(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	packages(t)
	bin, err := filepath.Abs("openapi/node_modules/.bin/" + name)
	assert.NoError(t, err)
	return command(t, dir, "node", append([]string{bin}, args...)...)
}

// packages skips a test that can't have node and the npm packages.
func packages(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("skipped: node is not installed")
	}
	if _, err := os.Stat("openapi/node_modules"); err != nil {
		t.Skip("skipped: openapi/node_modules is not there; npm ci in openapi makes it")
	}
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true", "NO_COLOR=1", "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, filepath.Base(name), strings.Join(args, " "), string(out))
	return string(out)
}

func TestOpenAPI_judges(t *testing.T) {
	url := documented(t)
	for _, version := range []string{"3.1", "3.2"} {
		file := document(t, url, version)
		for _, subject := range []string{"js/none", "js/broken", "js/odd", "js/good"} {
			text, err := os.ReadFile(file)
			assert.NoError(t, err)
			assert.Contains(t, string(text), `"/`+subject+`":`)
		}
		for name, args := range map[string][]string{
			"redocly":      {"lint", "--extends=recommended", "--max-problems=50", file},
			"spectral":     {"lint", "--ruleset", "spectral.yaml", "--fail-severity=warn", file},
			"validate-api": {file},
		} {
			t.Run(version+" "+name, func(t *testing.T) { t.Log(tool(t, "openapi", name, args...)) })
		}
	}
}

// workshop is a directory beside which the npm packages are found.
func workshop(t *testing.T, files ...string) string {
	t.Helper()
	modules, err := filepath.Abs("openapi/node_modules")
	assert.NoError(t, err)
	dir := t.TempDir()
	assert.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	for _, file := range append(files, "package.json") {
		copied(t, filepath.Join("openapi", file), filepath.Join(dir, file))
	}
	return dir
}

func copied(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	assert.NoError(t, err)
	assert.NoError(t, os.WriteFile(to, data, 0o600))
}

func TestOpenAPI_typescript(t *testing.T) {
	url := documented(t)
	for _, version := range []string{"3.1", "3.2"} {
		t.Run(version, func(t *testing.T) {
			dir := workshop(t, "client.ts", "tsconfig.json")
			tool(t, dir, "openapi-typescript", document(t, url, version), "--output", "schema.d.ts")
			tool(t, dir, "tsc", "--project", "tsconfig.json")
			out := command(t, dir, "node", "out/client.js", url)
			assert.Equal(t, out, `{"results":[3,42,7],"codes":["invalid_argument","invalid_argument"],"message":"can't sum two zeroes"}`+"\n")
		})
	}
}

func TestJSONRPC_clients(t *testing.T) {
	packages(t)
	url := documented(t)
	out := command(t, "openapi", "node", "jsonrpc.mjs", url+"/rpc")
	assert.Equal(t, out, `{"jayson":[3,"abcd","-32602 can't sum two zeroes","-32601 Method not found",null,[42,"xy"]],`+
		`"other":[7,"-32011 integer overflow",[["a",2],[7,-32601]]]}`+"\n")
}

// TestOpenAPI_go builds a client that oapi-codegen made of the document, and calls with it.
func TestOpenAPI_go(t *testing.T) {
	url := documented(t)
	generator := installed(t, oapiCodegen)
	for _, version := range []string{"3.1", "3.2"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			file := document(t, url, version)
			copied(t, "openapi/testdata/client.go", filepath.Join(dir, "main.go"))
			command(t, dir, generator, "-generate", "types,client", "-package", "main", "-o", "api.go", file)
			command(t, dir, "go", "mod", "init", "client.example")
			command(t, dir, "go", "get", oapiRuntime)
			out := command(t, dir, "go", "run", ".", url)
			assert.Equal(t, out, "3 42 7 11 400 invalid_argument\n")
		})
	}
}

// installed builds a Go program once, in the user's cache.
func installed(t *testing.T, program string) (path string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	assert.NoError(t, err)
	name, version, _ := strings.Cut(program, "@")
	dir := filepath.Join(cache, "postbus-tools", filepath.Base(name)+"-"+version+"-"+runtime.Version())
	path = filepath.Join(dir, filepath.Base(name))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "install", program)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("skipped: %s can't be built: %v: %s", program, err, out)
	}
	return path
}
