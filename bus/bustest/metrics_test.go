package bustest_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

// TestMetricsOfTwoBuses has two members of one service and a caller in this process, all on one registerer.
func TestMetricsOfTwoBuses(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := bustest.Server(t)
	a, b, caller := connect(t, s), connect(t, s), connect(t, s)
	for _, each := range []interface {
		endpoint.StatsReporter
		Use(...endpoint.Middleware)
	}{a, b, caller} {
		each.Use(metrics.New(reg))
		assert.NoError(t, reg.Register(metrics.Collector(each)))
	}
	ep := endpoint.New(square)
	assert.NoError(t, a.Serve("math.square", ep))
	assert.NoError(t, b.Serve("math.square", ep))
	call := endpoint.Caller[*Number, *Square](caller, "math.square")
	for n := range 20 {
		_, err := call(t.Context(), &Number{n})
		assert.NoError(t, err)
	}
	// The service counts once the reply is out, so the caller may be quicker.
	assert.Eventually(t, func() bool {
		return count(t, reg, "rpc_server_call_duration_seconds") == 20 && count(t, reg, "rpc_client_call_duration_seconds") == 20 &&
			count(t, reg, "rpc_bus_call_duration_seconds") == 20
	})
	families, err := reg.Gather()
	assert.NoError(t, err)
	instances := map[string]bool{}
	for _, f := range families {
		if f.GetName() == "rpc_bus_reconnects_total" {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					instances[l.GetValue()] = true
				}
			}
		}
	}
	assert.Equal(t, instances, map[string]bool{a.ID(): true, b.ID(): true, caller.ID(): true})
}

// count adds up the samples of a histogram over all labels.
func count(t *testing.T, reg prometheus.Gatherer, name string) uint64 {
	t.Helper()
	families, err := reg.Gather()
	assert.NoError(t, err)
	var n uint64
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}
