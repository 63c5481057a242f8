package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"pgregory.net/rapid"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

const (
	traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	trace  = "0af7651916cd43dd8448eb211c80319c"
)

// exemplars returns the labels of the exemplars there are, classic and native.
func exemplars(t interface{ Fatal(...any) }, reg prometheus.Gatherer) (classic, native []string) {
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, b := range m.GetHistogram().GetBucket() {
				for _, l := range b.GetExemplar().GetLabel() {
					classic = append(classic, l.GetName()+"="+l.GetValue())
				}
			}
			for _, e := range m.GetHistogram().GetExemplars() {
				for _, l := range e.GetLabel() {
					native = append(native, l.GetName()+"="+l.GetValue())
				}
			}
		}
	}
	return classic, native
}

func TestExemplars(t *testing.T) {
	for _, tc := range []struct{ name, traceparent, want string }{
		{"sampled", traced, trace},
		{"other flags, too", traced[:53] + "ff", trace},
		{"a later version", "42" + traced[2:] + "-more", trace},
		{"none", "", ""},
		{"not sampled", traced[:53] + "00", ""},
		{"not sampled, other flags", traced[:53] + "fe", ""},
		{"short", traced[:54], ""},
		{"this version has no more", traced + "-more", ""},
		{"later, run together", "42" + traced[2:] + "more", ""},
		{"forbidden version", "ff" + traced[2:], ""},
		{"version no hex", "0g" + traced[2:], ""},
		{"upper case", strings.ToUpper(traced), ""},
		{"no hex in the trace", "00-" + strings.Repeat("g", 32) + traced[35:], ""},
		{"trace all zero", "00-" + strings.Repeat("0", 32) + traced[35:], ""},
		{"parent all zero", traced[:36] + strings.Repeat("0", 16) + traced[52:], ""},
		{"no hex in the parent", traced[:51] + "\n" + traced[52:], ""},
		{"flags no hex", traced[:53] + "x1", ""},
		{"dash 1", "00_" + traced[3:], ""},
		{"dash 2", traced[:35] + "_" + traced[36:], ""},
		{"dash 3", traced[:52] + "_" + traced[53:], ""},
		{"not UTF-8", "00-" + strings.Repeat("\xff", 32) + traced[35:], ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
				reg := prometheus.NewPedanticRegistry()
				c := newCall(side, "svc", "add")
				c.Header.Set("Traceparent", tc.traceparent)
				_, err := metrics.New(reg)(ok)(t.Context(), c)
				assert.NoError(t, err)
				classic, native := exemplars(t, reg)
				if tc.want == "" {
					assert.Equal(t, len(classic)+len(native), 0)
					continue
				}
				assert.Equal(t, classic, []string{"trace_id=" + tc.want})
				assert.Equal(t, native, []string{"trace_id=" + tc.want})
			}
		})
	}
}

// TestOpenMetrics reads the format that shows exemplars, as a scraper does that asks for it.
func TestOpenMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := endpoint.NewMux()
	m.Use(metrics.New(reg))
	reg.MustRegister(metrics.Collector(m))
	metrics.Gauges(reg)("retry_budget", "svc.add", 1)
	serve(t, m, "svc.add", endpoint.New(add))
	_, err := endpoint.Caller[*addRequest, *addResponse](m, "svc.add")(endpoint.WithHeader(t.Context(), "traceparent", traced), &addRequest{})
	assert.NoError(t, err)
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	assert.Contains(t, w.Header().Get("Content-Type"), "openmetrics")
	assert.Contains(t, w.Body.String(), "# EOF")
	for _, side := range []string{"server", "client"} {
		lines := pick(strings.Split(w.Body.String(), "\n"), "rpc_"+side+"_call_duration_seconds_bucket", `# {trace_id="`+trace+`"}`)
		assert.Equal(t, len(lines), 1, side)
	}
}

// TestExemplarsOfAnything sends what strangers may: no exemplar has anything but 32 hex digits, and nothing panics.
func TestExemplarsOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reg := prometheus.NewPedanticRegistry()
		c := newCall(endpoint.ServerSide, "svc", "add")
		c.SetTrace(rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[0-9a-f]{2}-[0-9a-fA-Fg]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?`),
		).Draw(t, "traceparent"))
		_, _ = metrics.New(reg)(ok)(t.Context(), c)
		classic, _ := exemplars(t, reg)
		for _, e := range classic {
			id, found := strings.CutPrefix(e, "trace_id=")
			if !found || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
				t.Fatalf("exemplar %q", e)
			}
		}
	})
}
