package layers_test

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

// A test that can't fail proves nothing: here are the faults, and what the checkers must say about them.

func TestPolicyNamesViolations(t *testing.T) {
	const m = modulePath + "/"
	lib := func(pkg string, imports ...string) unit { return unit{pkg: pkg, file: pkg + "/x.go", imports: imports} }
	test := func(pkg string, imports ...string) unit {
		return unit{pkg: pkg, file: pkg + "/x_test.go", test: true, imports: imports}
	}
	for name, c := range map[string]struct {
		unit unit
		want []string // parts of the one fault; nil: no fault
	}{
		"std is welcome":                 {lib("codec", "fmt", "encoding/json"), nil},
		"one floor down":                 {lib("endpoint", m+"codec"), nil},
		"two floors down":                {lib("bus", m+"codec", m+"endpoint", m+"internal/wire"), nil},
		"roof":                           {lib("cmd/postbus", m+"bus", m+"httpbridge", m+"middleware/metrics", m+"embedded"), nil},
		"roof, its own packages":         {lib("examples/math", m+"examples/math/api"), nil},
		"bustest sees simnet":            {lib("bus/bustest", m+"internal/simnet", m+"embedded", "testing"), nil},
		"guests at their hosts":          {lib("bus", "github.com/nats-io/nats.go/micro", "github.com/klauspost/compress/zstd"), nil},
		"guest of the leaves":            {lib("httpbridge/grpcbridge", "connectrpc.com/connect/v2", "net/http"), nil},
		"external test":                  {test("codec", m+"codec", m+"internal/assert", m+"codec/codectest", "testing/synctest"), nil},
		"test guests":                    {test("middleware", "pgregory.net/rapid", "go.uber.org/goleak", "github.com/google/go-cmp/cmp"), nil},
		"validator in tests":             {test("endpoint", "github.com/google/jsonschema-go/jsonschema"), nil},
		"SDK in tests of tracing":        {test("middleware/tracing", "go.opentelemetry.io/otel/sdk/trace/tracetest"), nil},
		"whole house in tests":           {test("bus/bustest", m+"middleware", m+"httpbridge", "net/http/httptest"), nil},
		"exporters in examples":          {lib("examples/trace", "go.opentelemetry.io/otel/exporters/zipkin"), nil},
		"up":                             {lib("codec", m+"endpoint"), []string{"codec/x.go", "codec must not import endpoint"}},
		"a leaf from the core":           {lib("endpoint", m+"codec/cbor"), []string{"endpoint must not import codec/cbor"}},
		"bus to middleware":              {lib("bus", m+"middleware"), []string{"bus must not import middleware", "lower floor"}},
		"middleware to bus":              {lib("middleware", m+"bus"), []string{"middleware must not import bus"}},
		"bridge to bus":                  {lib("httpbridge", m+"bus"), []string{"httpbridge must not import bus"}},
		"bridge to middleware":           {lib("httpbridge", m+"middleware"), []string{"httpbridge must not import middleware"}},
		"bus to bridge":                  {lib("bus", m+"httpbridge"), []string{"bus must not import httpbridge"}},
		"siblings in tests":              {test("httpbridge", m+"bus"), []string{"a test of httpbridge must not import bus"}},
		"assert in a library":            {lib("bus", m+"internal/assert"), []string{"bus must not import internal/assert", "test files only"}},
		"assert on the roof":             {lib("cmd/postbus", m+"internal/assert"), []string{"cmd/postbus must not import internal/assert"}},
		"the roof is not stood on":       {lib("bus", m+"examples/math"), []string{"bus must not import examples/math"}},
		"one roof is not the other":      {lib("cmd/postbus", m+"examples/math"), []string{"must not import examples/math"}},
		"unknown package":                {lib("util", "fmt"), []string{"package util has no place", "Decide on which floor", "floors"}},
		"unknown package below a known":  {lib("bus/cache"), []string{"package bus/cache has no place"}},
		"import of an unknown package":   {lib("bus", m+"util"), []string{"bus imports util, which has no place"}},
		"the root":                       {lib(".", "fmt"), []string{"package . has no place"}},
		"unknown module":                 {lib("bus", "example.org/left-pad"), []string{"example.org/left-pad", "not in the policy", "worth it"}},
		"unknown module in a test":       {test("bus", "github.com/stretchr/testify"), []string{"a test of bus imports", "testGuests"}},
		"core with a guest":              {lib("endpoint", "golang.org/x/time/rate"), []string{"endpoint must not import golang.org/x/time/rate"}},
		"guests are not inherited":       {lib("bus/bustest", "github.com/nats-io/nats-server/v2/server"), []string{"guest of embedded"}},
		"server in the bus":              {lib("bus", "github.com/nats-io/nats-server/v2/server"), []string{"bus must not import"}},
		"not a server by its prefix":     {lib("embedded", "github.com/nats-io/nats-server/v3"), []string{"not in the policy"}},
		"prometheus in the core":         {lib("middleware", "github.com/prometheus/client_golang/prometheus"), []string{"guest of middleware/metrics"}},
		"API is not SDK":                 {lib("middleware/tracing", "go.opentelemetry.io/otel/sdk/trace"), []string{"otel/sdk is a guest of"}},
		"exporter nobody chose":          {lib("cmd/postbus", "go.opentelemetry.io/otel/exporters/otlp"), []string{"is a guest of nobody"}},
		"validator in a library":         {lib("httpbridge", "github.com/google/jsonschema-go/jsonschema"), []string{"guest of tests of endpoint"}},
		"rapid in a library":             {lib("bus/bustest", "pgregory.net/rapid"), []string{"guest of tests of every package"}},
		"http in the bus":                {lib("bus", "net/http"), []string{"bus must not import net/http"}},
		"http's children, in middleware": {lib("middleware", "net/http/httptrace"), []string{"net/http is a guest of"}},
		"testing in a library":           {lib("bus", "testing"), []string{"bus must not import testing"}},
		"cgo":                            {lib("bus", "C"), []string{"bus must not import C"}},
		"jwt outside of auth":            {lib("httpbridge", "github.com/golang-jwt/jwt/v5"), []string{"guest of httpbridge/auth"}},
		"kong in examples":               {lib("examples/math", "github.com/alecthomas/kong"), []string{"guest of cmd/..."}},
	} {
		t.Run(name, func(t *testing.T) {
			got := parsePolicy(t, floors, guests, testFloors, testGuests).check([]unit{c.unit})
			if c.want == nil {
				assert.Equal(t, len(got), 0, strings.Join(got, "\n"))
				return
			}
			assert.Equal(t, len(got), 1, strings.Join(got, "\n"))
			assert.Contains(t, got[0], c.want...)
		})
	}
}

func TestPolicyReportsAllFaultsOnce(t *testing.T) {
	u := unit{pkg: "codec", file: "codec/x.go", imports: []string{modulePath + "/bus", "net/http", modulePath + "/bus"}}
	got := parsePolicy(t, floors, guests, testFloors, testGuests).check([]unit{u, u})
	assert.Equal(t, len(got), 2, strings.Join(got, "\n"))
}

func TestPolicySyntax(t *testing.T) {
	rules, err := parseRules("a, b < c < d; # e < f\n\tg/... < h;")
	assert.NoError(t, err)
	assert.Equal(t, rules, []rule{
		{[]string{"a", "b"}, []string{"c"}}, {[]string{"c"}, []string{"d"}}, {[]string{"g/..."}, []string{"h"}},
	})
	for _, bad := range []string{"a", "a <", "< b", "a b < c", "a < b\nc < d"} {
		if _, err := parseRules(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestHouseRulesNameFaults(t *testing.T) {
	for name, c := range map[string]struct {
		src  string
		want string
	}{
		"init":          {`func init() {}`, "x.go:1:12: func init"},
		"method init":   {`type t int; func (t) init() {}`, ""},
		"environment":   {`import "os"; var x = os.Getenv("X")`, "os.Getenv is for cmd and examples"},
		"renamed":       {`import sys "os"; func f() { sys.Exit(1) }`, "sys.Exit is for cmd"},
		"dot":           {`import . "os"; func f() { Exit(1) }`, "dot import of os"},
		"signals":       {`import "os/signal"; func f() { signal.Notify(nil) }`, "signal.Notify"},
		"as a value":    {`import "os"; var exit = os.Exit`, "os.Exit"},
		"another os":    {`import "example.org/os"; func f() { os.Exit(1) }`, ""},
		"files are ok":  {`import "os"; var f, err = os.Open("x")`, ""},
		"global logger": {`import "log/slog"; func f() { slog.Info("x") }`, "slog.Info"},
	} {
		t.Run(name, func(t *testing.T) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, "x.go", "package x; "+c.src, parser.SkipObjectResolution)
			assert.NoError(t, err)
			got := strings.Join(houseFaults(fset, f), "\n")
			if c.want == "" {
				assert.Equal(t, got, "")
				return
			}
			assert.Contains(t, got, c.want)
		})
	}
}
