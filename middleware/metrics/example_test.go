package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postbus.example/endpoint"
	"postbus.example/middleware/metrics"
)

// show prints the lines of a registry that have each of the parts, in order.
func show(reg prometheus.Gatherer, parts ...string) {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	lines := pick(strings.Split(strings.TrimSpace(w.Body.String()), "\n"), parts...)
	slices.Sort(lines)
	fmt.Println(strings.Join(lines, "\n"))
}

func ExampleNew() {
	reg := prometheus.NewRegistry()
	mux := endpoint.NewMux()
	mux.Use(metrics.New(reg)) // around every handler and every caller
	_ = mux.Serve("svc.add", endpoint.New(add))

	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	for _, a := range []int{1, 2, -3} {
		_, _ = call(context.Background(), &addRequest{A: a})
	}
	show(reg, "duration_seconds_count")
	// Output:
	// rpc_client_call_duration_seconds_count{error_type="",rpc_method="svc/add",rpc_response_status_code="ok",rpc_system_name="postbus"} 2
	// rpc_client_call_duration_seconds_count{error_type="not_found",rpc_method="svc/add",rpc_response_status_code="not_found",rpc_system_name="postbus"} 1
	// rpc_server_call_duration_seconds_count{error_type="",rpc_method="svc/add",rpc_response_status_code="ok",rpc_system_name="postbus"} 2
	// rpc_server_call_duration_seconds_count{error_type="not_found",rpc_method="svc/add",rpc_response_status_code="not_found",rpc_system_name="postbus"} 1
}

// Two values around the same call count it twice. Bus-wide once is enough: what is inside of a retry is its attempts,
// and those the budget's gauge and the traces tell of.
func ExampleNew_incorrect() {
	reg := prometheus.NewRegistry()
	mux := endpoint.NewMux()
	mux.Use(metrics.New(reg))
	_ = mux.Serve("svc.add", endpoint.New(add, metrics.New(reg)))

	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{})
	show(reg, "rpc_server_call_duration_seconds_count")
	// Output:
	// rpc_server_call_duration_seconds_count{error_type="",rpc_method="svc/add",rpc_response_status_code="ok",rpc_system_name="postbus"} 2
}

func ExampleMaxMethods() {
	reg := prometheus.NewRegistry()
	mux := endpoint.NewMux()
	mux.Use(metrics.New(reg, metrics.MaxMethods(2)))
	for _, subject := range []string{"svc.a", "svc.b", "svc.c", "svc.d"} {
		_, _ = endpoint.Caller[*addRequest, *addResponse](mux, subject)(context.Background(), &addRequest{})
	}
	show(reg, "rpc_client_call_duration_seconds_count")
	// Output:
	// rpc_client_call_duration_seconds_count{error_type="unavailable",rpc_method="_OTHER",rpc_response_status_code="unavailable",rpc_system_name="postbus"} 2
	// rpc_client_call_duration_seconds_count{error_type="unavailable",rpc_method="svc/a",rpc_response_status_code="unavailable",rpc_system_name="postbus"} 1
	// rpc_client_call_duration_seconds_count{error_type="unavailable",rpc_method="svc/b",rpc_response_status_code="unavailable",rpc_system_name="postbus"} 1
}

// instance gives a Mux the id that a bus has, so that the example's output is the same at each run.
type instance struct{ *endpoint.Mux }

func (instance) ID() string { return "i1" }

func ExampleCollector() {
	reg := prometheus.NewRegistry()
	mux := endpoint.NewMux()
	reg.MustRegister(metrics.Collector(instance{mux})) // of a *bus.Bus: metrics.Collector(bus)
	_ = mux.Serve("svc.add", endpoint.New(add))

	_, _ = endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")(context.Background(), &addRequest{A: -1})
	show(reg, "rpc_bus_call", "_total{")
	// Output:
	// rpc_bus_call_errors_total{rpc_method="svc/add",rpc_response_status_code="not_found",rpc_subject="svc.add",service_instance_id="i1"} 1
	// rpc_bus_calls_dropped_total{rpc_method="svc/add",rpc_subject="svc.add",service_instance_id="i1"} 0
	// rpc_bus_calls_expired_total{rpc_method="svc/add",rpc_subject="svc.add",service_instance_id="i1"} 0
	// rpc_bus_calls_refused_total{rpc_method="svc/add",rpc_subject="svc.add",service_instance_id="i1"} 0
	// rpc_bus_calls_total{rpc_method="svc/add",rpc_subject="svc.add",service_instance_id="i1"} 1
}

func ExampleGauges() {
	reg := prometheus.NewRegistry()
	report := metrics.Gauges(reg) // the Report of a policy: middleware.BudgetPolicy{Report: report}

	report("retry_budget", "svc.add", 99)
	report("retry_budget", "svc.add", 98)
	show(reg, "rpc_retry_budget{")
	// Output: rpc_retry_budget{rpc_method="svc/add",rpc_subject="svc.add"} 98
}

// A value for each user is a time series for each user: the first thousand are kept for good, the others share one. What
// differs from call to call belongs into logs and traces.
func ExampleGauges_incorrect() {
	reg := prometheus.NewRegistry()
	report := metrics.Gauges(reg)
	for user := range 100_000 {
		report("tokens_left", fmt.Sprintf("users.%d", user), 1)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	fmt.Println(strings.Count(w.Body.String(), "rpc_tokens_left{"))
	// Output: 1001
}
