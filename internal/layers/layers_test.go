package layers_test

import "testing"

// The import policy of this module, as text.
//
// DO NOT CHANGE THIS DATA TO FIX A BUILD.
// An import that is refused here is a question about the design: does the code stand on the right floor, and is the
// new dependency worth it to everybody who will compile it? Answer it first, with whoever owns the design, and let
// the change of the policy be a diff of its own. Negative statements should almost never be removed.
//
// "a < b" means b may import a. Names are separated by commas, rules by semicolons, "#" starts a comment.
// Packages of this module are written without the module path; "a/..." is a and all below it.
// A package that is not named here, and a module that is not named here, are refused.

// floors orders the packages of this module. It is transitive: a < b < c lets c import a, too.
// NOTHING is no package of this module; EVERYTHING is all that is named here.
const floors = `
	# Bytes and values. The leaves bring their libraries with them, the core knows std only.
	NOTHING < internal/fields < codec, internal/schema;
	codec < codec/protobuf, codec/cbor, codec/jsonv2, codec/codectest;

	# The one idea: an RPC is a function.
	codec, internal/schema < endpoint;

	# What stands on it. bus, middleware and httpbridge are siblings: none of them ever imports another, so that
	# a middleware never needs the bus, the bus never needs a middleware, and the bridge runs before any transport.
	endpoint < internal/wire < internal/stream < bus;
	NOTHING < internal/uplink < bus;
	endpoint < internal/identity;
	endpoint, internal/identity < middleware, httpbridge;
	endpoint < middleware/metrics, middleware/tracing;
	NOTHING < internal/traceparent < internal/wire, middleware/tracing;
	httpbridge < httpbridge/grpcbridge, httpbridge/auth, httpbridge/console;

	# A broker and a network in this process.
	NOTHING < embedded, internal/simnet;
	bus, embedded, internal/simnet < bus/bustest;

	# This package: tests only.
	NOTHING < internal/layers;

	# The roof. Nothing stands on it.
	EVERYTHING < examples/..., cmd/...;
	examples/... < examples/...;
	cmd/... < cmd/...;
`

// guests says which packages may import what is not ours: third-party modules, and the packages of std that are
// no business of most of the house. A guest is named by the head of its import path, the longest name that fits
// counts, and other packages of std are welcome everywhere. It is NOT transitive: each host is named.
// NOBODY is no package at all: not outside of test files, or not at all.
const guests = `
	github.com/nats-io/nats.go        < bus, internal/uplink, bus/bustest, embedded, examples/..., cmd/...;
	github.com/nats-io/nats-server/v2 < embedded;

	github.com/prometheus < middleware/metrics, examples/..., cmd/...;

	go.opentelemetry.io/otel                  < middleware/tracing, examples/..., cmd/...;
	go.opentelemetry.io/otel/sdk              < examples/..., cmd/...;
	go.opentelemetry.io/otel/exporters        < NOBODY;
	go.opentelemetry.io/otel/exporters/stdout < examples/..., cmd/...;
	go.opentelemetry.io/otel/exporters/zipkin < examples/..., cmd/...;

	github.com/sony/gobreaker/v2 < middleware;
	golang.org/x/time/rate       < middleware, examples/..., cmd/...;

	google.golang.org/protobuf   < codec/protobuf, httpbridge/grpcbridge, examples/...;
	github.com/fxamacker/cbor/v2 < codec/cbor;
	github.com/go-json-experiment/json < codec/jsonv2;  # the standard library's own next engine
	connectrpc.com/connect       < httpbridge/grpcbridge;
	github.com/golang-jwt/jwt/v5 < httpbridge/auth;
	github.com/klauspost/compress < bus, httpbridge;

	github.com/alecthomas/kong < cmd/...;
	go.yaml.in/yaml/v4         < cmd/...;  # the configuration file; its nodes know their lines
	github.com/lmittmann/tint  < examples/..., cmd/...;

	github.com/google/jsonschema-go < NOBODY;
	github.com/google/go-cmp        < NOBODY;
	go.uber.org/goleak              < NOBODY;
	pgregory.net/rapid              < NOBODY;

	# std, where it matters
	net/http < httpbridge/..., middleware/metrics, examples/..., cmd/...;
	testing  < internal/assert, codec/codectest, bus/bustest;
	expvar   < NOBODY;  # registers itself in the default mux
	plugin   < NOBODY;
	C        < NOBODY;  # builds without a C compiler, for every platform
`

// testFloors and testGuests say what test files, internal or external, may import besides what their package may.
// They are not transitive. EVERYTEST is the test files of every package.
const testFloors = `
	internal/assert < EVERYTEST;
	codec/codectest < codec/...;
	codec/protobuf, codec/cbor, codec/jsonv2 < codec, endpoint, bus, httpbridge/...;

	# The siblings' tests don't meet either: endpoint.Mux is their transport.
	bus/bustest, embedded, internal/simnet < bus;
	embedded, bus, bus/bustest < internal/simnet;

	# Tests of the whole house at once live in bus/bustest.
	middleware, middleware/metrics, middleware/tracing, httpbridge < bus/bustest;
`

const testGuests = `
	testing, github.com/google/go-cmp, go.uber.org/goleak, pgregory.net/rapid < EVERYTEST;

	github.com/google/jsonschema-go   < endpoint, internal/schema, bus, httpbridge/...;
	google.golang.org/protobuf        < codec/..., endpoint, bus, httpbridge/...;
	github.com/nats-io/nats.go        < internal/wire, internal/simnet;  # its parser is the oracle of ours
	github.com/nats-io/nats-server/v2 < bus, bus/bustest, internal/simnet;
	github.com/nats-io/jwt/v2, github.com/nats-io/nkeys < bus, bus/bustest, embedded;
	go.opentelemetry.io/otel          < bus/bustest;
	go.opentelemetry.io/otel/sdk      < middleware/tracing, bus/bustest;
	go.opentelemetry.io/otel/exporters/zipkin < middleware/tracing;  # the recipe, and a collector's stub
	golang.org/x/time/rate            < bus/bustest;
	github.com/prometheus             < bus/bustest;
	expvar                            < middleware/metrics;  # a recipe, run as an example
	net/http                          < bus/bustest, embedded, middleware/tracing;  # bridges of the whole house; the monitoring port; the stub
`

// TestImports holds the real imports against the policy, on every platform at once: build constraints don't count.
func TestImports(t *testing.T) {
	p := parsePolicy(t, floors, guests, testFloors, testGuests)
	for _, fault := range p.check(importsOf(module(t))) {
		t.Error(fault)
	}
}

// TestHouseRules holds the code outside cmd and examples against the rules of the house that a parser can see.
func TestHouseRules(t *testing.T) {
	for _, pkg := range module(t) {
		if roof(pkg.path) {
			continue
		}
		for _, f := range pkg.files {
			if !f.test {
				for _, fault := range houseFaults(f.fset, f.ast) {
					t.Error(fault)
				}
			}
		}
	}
}
