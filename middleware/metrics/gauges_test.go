package metrics_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

func TestGauges(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	a, b := metrics.Gauges(reg), metrics.Gauges(reg) // of two buses
	a("retry_budget", "svc.add", 3)
	a("retry_budget", "acme.users.get", 8)
	a("breaker_state", "svc.add", 1)
	b("retry_budget", "svc.add", 2.5)
	b("limit", "", 7)
	a("per-cent of.ünits", "svc.add", math.Inf(1))
	a("hits_total", "svc.add", 1)
	a("latency_bucket", "svc.add", 1)
	assert.Equal(t, scrape(t, reg), []string{
		`rpc_breaker_state{rpc_method="svc/add",rpc_subject="svc.add"} 1`,
		`rpc_hits_total_value{rpc_method="svc/add",rpc_subject="svc.add"} 1`,
		`rpc_latency_bucket_value{rpc_method="svc/add",rpc_subject="svc.add"} 1`,
		`rpc_limit{rpc_method="",rpc_subject=""} 7`,
		`rpc_per_cent_of__nits{rpc_method="svc/add",rpc_subject="svc.add"} +Inf`,
		`rpc_retry_budget{rpc_method="acme-users/get",rpc_subject="acme.users.get"} 8`,
		`rpc_retry_budget{rpc_method="svc/add",rpc_subject="svc.add"} 2.5`,
	})
}

// TestGaugesInTheWay has metrics of other owners under the same names: theirs stay, ours are left out, nobody panics.
func TestGaugesInTheWay(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "rpc_limit", Help: "Mine."})) //nolint:promlinter // in the way
	metrics.New(reg)
	report := metrics.Gauges(reg)
	for range 2 {
		report("limit", "svc.add", 7)
		report("server_calls_in_flight", "svc.add", 7)
		report("server_call_duration_seconds_count", "svc.add", 7)
	}
	assert.Equal(t, scrape(t, reg), []string{
		`rpc_limit 0`,
		`rpc_server_call_duration_seconds_count_value{rpc_method="svc/add",rpc_subject="svc.add"} 7`,
	})
}

func TestGaugesAreBounded(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	report := metrics.Gauges(reg)
	report("limit", strings.Repeat("x", 1<<20), 4)
	assert.Equal(t, scrape(t, reg), []string{`rpc_limit{rpc_method="_OTHER",rpc_subject="_OTHER"} 4`})
	for i := range 1100 {
		report("limit", fmt.Sprintf("svc.n%d", i), float64(i))
	}
	lines := scrape(t, reg)
	assert.Equal(t, len(lines), 1001)
	assert.Equal(t, pick(lines, "_OTHER"), []string{`rpc_limit{rpc_method="_OTHER",rpc_subject="_OTHER"} 1099`})
	for i := range 200 {
		report(fmt.Sprintf("name%d", i), "svc.add", 1)
	}
	assert.Equal(t, len(pick(scrape(t, reg), "rpc_name")), 99)
	report("limit", "svc.n1", -1)
	assert.Equal(t, len(pick(scrape(t, reg), `"svc.n1"} -1`)), 1, "what is there goes on")
}

// TestGaugesOfAnything reports whatever comes: nothing panics, and no scrape fails.
func TestGaugesOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reg := prometheus.NewPedanticRegistry()
		metrics.New(reg)
		a, b := metrics.Gauges(reg), metrics.Gauges(reg)
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z_:.-]{0,8}(_total|_sum|_info|)`),
			rapid.Just("server_call_duration_seconds_sum"), rapid.StringN(90, 200, -1))
		subject := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z]{1,3}\.[a-z]{1,3}`), rapid.Just("\xff"))
		for range rapid.IntRange(1, 10).Draw(t, "reports") {
			n, s, v := name.Draw(t, "name"), subject.Draw(t, "subject"), rapid.Float64().Draw(t, "value")
			a(n, s, v)
			b(n, s, v)
		}
		if _, err := reg.Gather(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestGaugesConcurrently(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	report := metrics.Gauges(reg)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 100 {
				report(fmt.Sprintf("name%d", n%3), fmt.Sprintf("svc.n%d", n%7), float64(i))
			}
		})
	}
	wg.Wait()
	assert.Equal(t, len(scrape(t, reg)), 3*7)
}
