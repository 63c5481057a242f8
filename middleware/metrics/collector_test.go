package metrics_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

// reporter is a bus with an id.
type reporter struct {
	id    string
	stats func() []endpoint.Stats
}

func (r *reporter) ID() string { return r.id }

func (r *reporter) Stats() []endpoint.Stats { return r.stats() }

func fixed(id string, stats ...endpoint.Stats) *reporter {
	return &reporter{id, func() []endpoint.Stats { return stats }}
}

// statsOf returns different numbers everywhere.
func statsOf(subject string) endpoint.Stats {
	s := endpoint.Stats{
		Service: "svc", Name: "add", Subject: subject, Calls: 10, InFlight: 2, Waiting: 3, Refused: 4, Expired: 5, Dropped: 6,
		Late: 7, Malformed: 8, Denied: 11, Reconnects: 9, Errors: map[endpoint.Code]uint64{endpoint.NotFound: 3, endpoint.Internal: 1},
	}
	s.Latency.Sum = 1500 * time.Millisecond
	s.Latency.Counts[0], s.Latency.Counts[3], s.Latency.Counts[4], s.Latency.Counts[endpoint.HistogramBuckets-1] = 1, 2, 3, 4
	return s
}

func register(t testing.TB, cs ...prometheus.Collector) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	for _, c := range cs {
		assert.NoError(t, reg.Register(c))
	}
	return reg
}

func TestCollector(t *testing.T) {
	lines := without("i1", scrape(t, register(t, metrics.Collector(fixed("i1", statsOf("svc.add"), statsOf(""))))))
	var rest []string
	for _, line := range lines {
		if !strings.Contains(line, "_bucket") {
			rest = append(rest, strings.NewReplacer(`rpc_method="svc/add",`, "", `rpc_subject="svc.add"`, "*").Replace(line))
		}
	}
	assert.Equal(t, rest, []string{
		`rpc_bus_call_duration_seconds_count{*} 10`,
		`rpc_bus_call_duration_seconds_sum{*} 1.5`,
		`rpc_bus_call_errors_total{rpc_response_status_code="internal",*} 1`,
		`rpc_bus_call_errors_total{rpc_response_status_code="not_found",*} 3`,
		`rpc_bus_calls_dropped_total{*} 6`,
		`rpc_bus_calls_expired_total{*} 5`,
		`rpc_bus_calls_in_flight{*} 2`,
		`rpc_bus_calls_refused_total{*} 4`,
		`rpc_bus_calls_total{*} 10`,
		`rpc_bus_calls_waiting{*} 3`,
		`rpc_bus_messages_malformed_total{} 8`,
		`rpc_bus_publishes_denied_total{} 11`,
		`rpc_bus_reconnects_total{} 9`,
		`rpc_bus_replies_dropped_total{} 6`,
		`rpc_bus_replies_late_total{} 7`,
	})
	buckets := pick(lines, "_bucket")
	assert.Equal(t, len(buckets), 31, "thirty and +Inf")
	assert.Equal(t, len(pick(buckets, `le="4e-06"} 3`)), 1, "below 4 µs")
	assert.Equal(t, len(pick(buckets, `le="8e-06"} 6`)), 1, "below 8 µs")
	assert.Equal(t, len(pick(buckets, `le="2147.483648"} 6`)), 1, "the last one")
	assert.Equal(t, len(pick(buckets, `le="+Inf"} 10`)), 1)
}

// TestCollectorOfMux holds the counters against real calls.
func TestCollectorOfMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := endpoint.NewMux()
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			time.Sleep(time.Second)
			return add(ctx, r)
		}))
		calls(t, m, 7, 3)
		lines := scrape(t, register(t, metrics.Collector(m)))
		for _, want := range [][]string{
			{"rpc_bus_calls_total", `rpc_method="svc/add"`, `rpc_subject="svc.add"`, "} 10"},
			{"rpc_bus_call_errors_total", `rpc_response_status_code="not_found"`, "} 3"},
			{"rpc_bus_call_duration_seconds_sum", "} 10"},
			{"rpc_bus_replies_late_total", "} 0"},
		} {
			assert.Equal(t, len(pick(lines, want...)), 1, want...)
		}
		assert.Equal(t, len(pick(lines, `service_instance_id=""`)), 0, "a Mux has no ID method: its label is a random one")
	})
}

// TestCollectorsTogether puts the collectors of buses that serve the same on one registerer.
func TestCollectorsTogether(t *testing.T) {
	a, b := fixed("a", statsOf("svc.add"), statsOf("")), fixed("b", statsOf("svc.add"), statsOf(""))
	m1, m2 := endpoint.NewMux(), endpoint.NewMux()
	reg := register(t, metrics.Collector(a), metrics.Collector(b), metrics.Collector(m1), metrics.Collector(m2), metrics.Collector(nil))
	assert.Equal(t, len(pick(scrape(t, reg), "rpc_bus_calls_total")), 2)
	assert.Equal(t, len(pick(scrape(t, reg), "rpc_bus_reconnects_total")), 4)

	again := reg.Register(metrics.Collector(a))
	_, twice := errors.AsType[prometheus.AlreadyRegisteredError](again)
	assert.True(t, twice, "the same bus twice")

	wrapped := prometheus.NewPedanticRegistry()
	for _, zone := range []string{"eu", "us"} {
		assert.NoError(t, prometheus.WrapRegistererWith(prometheus.Labels{"zone": zone}, wrapped).Register(metrics.Collector(a)))
	}
	assert.Equal(t, len(pick(scrape(t, wrapped), "rpc_bus_calls_total", `zone="us"`)), 1)
}

// TestCollectorOfDoubles has names that meet: the subjects differ, or nothing does.
func TestCollectorOfDoubles(t *testing.T) {
	reg := register(t, metrics.Collector(fixed("a", statsOf("svc.add"), statsOf("svc.add"), statsOf("svc-add"), statsOf(""), statsOf(""))))
	lines := without("a", scrape(t, reg))
	for _, want := range []string{
		`rpc_bus_calls_total{rpc_method="svc/add",rpc_subject="svc.add"} 20`,
		`rpc_bus_calls_total{rpc_method="svc/add",rpc_subject="svc-add"} 10`,
		`rpc_bus_calls_in_flight{rpc_method="svc/add",rpc_subject="svc.add"} 4`,
		`rpc_bus_calls_waiting{rpc_method="svc/add",rpc_subject="svc.add"} 6`,
		`rpc_bus_calls_refused_total{rpc_method="svc/add",rpc_subject="svc.add"} 8`,
		`rpc_bus_calls_expired_total{rpc_method="svc/add",rpc_subject="svc.add"} 10`,
		`rpc_bus_calls_dropped_total{rpc_method="svc/add",rpc_subject="svc.add"} 12`,
		`rpc_bus_call_errors_total{rpc_method="svc/add",rpc_response_status_code="not_found",rpc_subject="svc.add"} 6`,
		`rpc_bus_call_duration_seconds_count{rpc_method="svc/add",rpc_subject="svc.add"} 20`,
		`rpc_bus_call_duration_seconds_sum{rpc_method="svc/add",rpc_subject="svc.add"} 3`,
		`rpc_bus_replies_late_total{} 14`, `rpc_bus_messages_malformed_total{} 16`, `rpc_bus_publishes_denied_total{} 22`, `rpc_bus_reconnects_total{} 18`, `rpc_bus_replies_dropped_total{} 12`,
	} {
		assert.Equal(t, pick(lines, want), []string{want})
	}
}

// TestCollectorOfAnything has a reporter that nobody tested.
func TestCollectorOfAnything(t *testing.T) {
	strange := statsOf("\xff.add")
	strange.Service, strange.Name = "\xff", ""
	strange.Errors = map[endpoint.Code]uint64{99: 1, 100: 2, endpoint.OK: 3, endpoint.Unknown: 4}
	lines := scrape(t, register(t, metrics.Collector(fixed("\xffid", strange))))
	assert.Equal(t, pick(lines, "errors_total"), []string{
		`rpc_bus_call_errors_total{rpc_method="_OTHER",rpc_response_status_code="unknown",rpc_subject="_.add",service_instance_id="_id"} 10`,
	})

	reg := register(t,
		metrics.Collector(&reporter{"a", func() []endpoint.Stats { panic("a bug") }}),
		metrics.Collector(fixed("b", statsOf(""))),
		metrics.Collector((*reporter)(nil)),
	)
	assert.Equal(t, len(scrape(t, reg)), 5, "what the others have")
}
