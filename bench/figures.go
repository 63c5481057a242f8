package main

import (
	"strconv"
	"time"

	"postbus.example/bench/harness"
	"postbus.example/bench/peer"
)

// figure is one row of the table: a ratio of two systems under one load, or one system's own figure.
type figure struct {
	group  string // what -only finds it by, beside its name
	name   string
	at     string // under what load
	of     harness.Point
	than   harness.Point // none where the figure is absolute
	metric metric
	least  float64 // to reach, 0 for what is only shown
	aim    float64
	less   bool // is better: least reads at most
	unit   string
}

type metric func(*harness.Result) float64

func rate(r *harness.Result) float64      { return r.Rate() }
func cpu(r *harness.Result) float64       { return float64(r.CPU()) }
func p99(r *harness.Result) float64       { return float64(r.P99) }
func p50(r *harness.Result) float64       { return float64(r.P50) }
func p50micros(r *harness.Result) float64 { return float64(r.P50) / float64(time.Microsecond) }
func clientAllocs(r *harness.Result) float64 {
	return r.ClientAllocs()
}

func serviceAllocs(r *harness.Result) float64 {
	return r.ServiceAllocs()
}

// value takes one of what a probe measured.
func value(name string) metric {
	return func(r *harness.Result) float64 { return r.Values[name] }
}

const small = 20 // bytes

// book makes figures for a length of the windows.
type book struct{ warm, window time.Duration }

func (b book) load(callers int) harness.Load {
	return harness.Load{Callers: callers, Size: small, Warm: b.warm, Window: b.window}
}

func (b book) point(system string, callers int) harness.Point {
	return harness.Point{System: system, Load: b.load(callers)}
}

// goal is what is to be reached with some callers.
type goal struct {
	callers    int
	least, aim float64
}

// ratios are rows of throughput, more is better.
func (b book) ratios(group, name, of, than string, goals ...goal) []figure {
	var fs []figure
	for _, g := range goals {
		fs = append(fs, figure{
			group: group, name: name, at: callers(g.callers), of: b.point(of, g.callers), than: b.point(than, g.callers),
			metric: rate, least: g.least, aim: g.aim, unit: "×",
		})
	}
	return fs
}

func callers(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return strconv.Itoa(n) + " callers"
}

// figures are those to reach, in the order of the table. A row whose system is not among the peers is one that is not built.
func (b book) figures() []figure {
	var fs []figure
	fs = append(fs, b.ratios("plain", "plain wire, bytes, against raw nats.go", "postbus", "raw", goal{16, 1.3, 1.8}, goal{64, 1.3, 1.9}, goal{256, 1.2, 1.8})...)
	fs = append(fs, b.ratios("plain", "plain wire, protobuf, against gRPC-Go", "postbus-proto", "grpc", goal{16, 1.5, 1.9}, goal{64, 2, 2.7}, goal{256, 2.5, 3.3})...)
	fs = append(fs, b.ratios("plain", "plain wire, JSON, against Go kit over NATS", "postbus-json", "gokit", goal{64, 1.15, 1.45}, goal{256, 1.4, 1.9})...)
	fs = append(fs, b.ratios("batch", "batch frames, protobuf, against raw nats.go", "postbus-batch", "raw", goal{64, 2, 2.6}, goal{256, 2.3, 3}, goal{1024, 2.5, 3.5})...)
	fs = append(fs, b.ratios("batch", "batch frames, protobuf, against gRPC-Go", "postbus-batch", "grpc", goal{64, 3.5, 4.8}, goal{256, 5, 8.4})...)
	fs = append(fs,
		figure{group: "plain", name: "CPU of a call, all processes, against raw nats.go", at: callers(64), of: b.point("postbus", 64), than: b.point("raw", 64), metric: cpu, least: 0.75, aim: 0.5, less: true, unit: "×"},
		figure{group: "plain", name: "p99 against gRPC-Go", at: callers(64), of: b.point("postbus-proto", 64), than: b.point("grpc", 64), metric: p99, least: 0.6, aim: 0.25, less: true, unit: "×"},
		figure{group: "plain", name: "p50 against raw nats.go", at: callers(1), of: b.point("postbus", 1), than: b.point("raw", 1), metric: p50, least: 1.15, aim: 1, less: true, unit: "×"},
	)
	fs = append(fs, b.stacks()...)
	fs = append(fs, b.core()...)
	fs = append(fs, b.streams()...)
	return append(fs, b.bridges()...)
}

// streams are figures of one server stream with items of 1 KiB, against the same by publish and subscribe, which nothing holds back.
// The windows are longer, since a call is a whole stream.
func (b book) streams() []figure {
	point := func(system string) harness.Point {
		return harness.Point{System: system, Load: harness.Load{Callers: 1, Size: 1 << 10, Warm: b.warm, Window: 3 * b.window}}
	}
	ours, raw := point("postbus-stream"), point("raw-stream")
	item := func(of metric) metric { return func(r *harness.Result) float64 { return of(r) / peer.Items } }
	both := func(r *harness.Result) float64 { return r.ClientAllocs() + r.ServiceAllocs() }
	return []figure{
		{group: "stream", name: "server stream, items of 1 KiB, against raw publish and subscribe", at: "1 stream", of: ours, than: raw, metric: rate, least: 0.8, aim: 1, unit: "×"},
		{group: "stream", name: "CPU of an item, all processes, against the same", at: "1 stream", of: ours, than: raw, metric: cpu, less: true, unit: "×"},
		{group: "stream", name: "allocations of an item, client and service", at: "1 stream", of: ours, metric: item(both), least: 6, aim: 4, less: true},
		{group: "stream", name: "… of raw publish and subscribe", at: "1 stream", of: raw, metric: item(both), less: true},
	}
}

// stacks are what the default stacks leave of the bare call's throughput, whole and in parts.
func (b book) stacks() []figure {
	fs := b.ratios("stacks", "whole default stacks against the bare call", "stacks-whole", "stacks-bare", goal{64, 0.75, 0.88})
	for _, part := range []struct{ system, name string }{
		{"stacks-none", "… nothing but Recover and Validate"},
		{"stacks-log", "… a log at warn"},
		{"stacks-metrics", "… metrics"},
		{"stacks-tracing", "… traces that are not sampled"},
		{"stacks-timeout", "… a timeout"},
		{"stacks-retry", "… retries"},
		{"stacks-breaker", "… a breaker"},
	} {
		fs = append(fs, b.ratios("stacks", part.name, part.system, "stacks-bare", goal{callers: 64})...)
	}
	return fs
}

// core are figures of what lies beneath: the chain, allocations, slow handlers, busy processors, calls in flight.
func (b book) core() []figure {
	hogs := func(system string) harness.Point {
		p := b.point(system, 64)
		p.Load.Hogs = 4
		return p
	}
	probe := func(system string) harness.Point { return harness.Point{System: system} }
	return []figure{
		{group: "chain", name: "six no-op middlewares, time", of: probe("chain"), metric: value("ns"), least: 100, aim: 25, less: true, unit: "ns"},
		{group: "chain", name: "six no-op middlewares, allocations", of: probe("chain"), metric: value("allocs"), least: 0.01, aim: 0.01, less: true},
		{group: "allocations", name: "allocations of a call, Raw codec, client", at: callers(64), of: b.point("postbus", 64), metric: clientAllocs, least: 4, aim: 3, less: true},
		{group: "allocations", name: "allocations of a call, Raw codec, service", at: callers(64), of: b.point("postbus", 64), metric: serviceAllocs, least: 6, aim: 5, less: true},
		{group: "slow", name: "1 % of handlers block 5 ms, against all quick", at: callers(64), of: b.point("postbus-slow", 64), than: b.point("postbus", 64), metric: rate, least: 0.7, aim: 0.9, unit: "×"},
		{group: "hogs", name: "under 4 busy goroutines, against raw nats.go", at: callers(64), of: hogs("postbus"), than: hogs("raw"), metric: rate, least: 0.9, aim: 1.3, unit: "×"},
		{group: "flight", name: "100,000 calls in flight: client", of: probe("flight"), metric: value("client"), least: 450, aim: 300, less: true, unit: "MB"},
		{group: "flight", name: "100,000 calls in flight: client, default stack", of: probe("flight-stacks"), metric: value("client"), least: 600, aim: 450, less: true, unit: "MB"},
		{group: "flight", name: "… of raw nats.go", of: probe("flight-raw"), metric: value("client"), less: true, unit: "MB"},
		{group: "flight", name: "100,000 calls in flight: service", of: probe("flight"), metric: value("service"), least: 120, aim: 80, less: true, unit: "MB"},
	}
}

// bridges are figures of the ways around the broker: HTTP in front of it, a program with its own broker, large bodies.
func (b book) bridges() []figure {
	fs := b.ratios("bridge", "HTTP bridge, JSON, against grpc-gateway", "bridge", "grpc-gateway", goal{64, 1.3, 1.5}, goal{256, 1.4, 1.6})
	fs = append(fs, b.ratios("bridge", "HTTP bridge against a net/http JSON service", "bridge", "http-json", goal{64, 0.5, 0.7})...)
	stream := harness.Point{System: "transfer"}
	return append(fs,
		figure{group: "embedded", name: "embedded, p50", at: callers(1), of: b.point("embedded", 1), metric: p50micros, least: 20, aim: 10, less: true, unit: "µs"},
		figure{group: "transfer", name: "32 MiB transfer: throughput", of: stream, metric: value("rate"), least: 250, aim: 300, unit: "MB/s"},
		figure{group: "transfer", name: "32 MiB transfer: p99 of small calls beside it", of: stream, metric: value("p99"), least: 20, aim: 10, less: true, unit: "ms"},
	)
}
