// Package metrics measures calls for Prometheus: a middleware for both sides, a collector for what a bus counts itself,
// and gauges for what policies report.
//
//	reg := prometheus.NewRegistry()
//	bus.Use(metrics.New(reg))
//	reg.MustRegister(metrics.Collector(bus))
//	budget := middleware.NewBudget(middleware.BudgetPolicy{Report: metrics.Gauges(reg)})
//	http.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
//
// # The metrics
//
// Of [New], for handlers, and each also as rpc_client_… for callers; all with rpc_system_name="postbus":
//
//	rpc_server_call_duration_seconds     histogram  rpc_method, rpc_response_status_code, error_type
//	rpc_server_call_request_size_bytes   histogram  rpc_method     not of requests that are streams
//	rpc_server_call_reply_size_bytes     histogram  rpc_method     of replies that are there: not of failures and streams
//	rpc_server_calls_in_flight           gauge      rpc_method
//
// Of [Collector], all with service_instance_id; the last four are of the transport:
//
//	rpc_bus_calls_total                  counter    rpc_method, rpc_subject
//	rpc_bus_call_errors_total            counter    rpc_method, rpc_subject, rpc_response_status_code
//	rpc_bus_call_duration_seconds        histogram  rpc_method, rpc_subject     from receipt to reply; classic buckets only
//	rpc_bus_calls_in_flight              gauge      rpc_method, rpc_subject
//	rpc_bus_calls_waiting                gauge      rpc_method, rpc_subject     admitted, not yet running
//	rpc_bus_calls_refused_total          counter    rpc_method, rpc_subject     no room
//	rpc_bus_calls_expired_total          counter    rpc_method, rpc_subject     too late to run
//	rpc_bus_calls_dropped_total          counter    rpc_method, rpc_subject     by the client library: watch that it is 0
//	rpc_bus_replies_late_total           counter
//	rpc_bus_replies_dropped_total        counter
//	rpc_bus_messages_malformed_total     counter
//	rpc_bus_publishes_denied_total       counter                                by the broker, for want of a grant
//	rpc_bus_reconnects_total             counter
//
// Of [Gauges]:
//
//	rpc_<name>                           gauge      rpc_method, rpc_subject     such as rpc_retry_budget
//
// The labels:
//
//	rpc_method                service/name, as registered; at a caller what its subject makes of it. "_OTHER" where there is no
//	                          room
//	rpc_response_status_code  ok, not_found, …: the names of the codes, seventeen in all
//	error_type                the code of a failure, "" (which is no label at all) for ok. The reasons, which say more, are
//	                          free text to a peer, so they stand in logs and traces
//	rpc_subject               of the call
//	service_instance_id       of the bus, as in logs and traces
//
// The call durations are those of the OpenTelemetry conventions for RPC, as an exporter for Prometheus writes them: one
// dashboard serves services of both kinds.
//
// # Buckets
//
// Histograms of New have classic buckets, for every scraper, and native ones (at most a tenth wide, at most 160), for those
// that ask for them, as Prometheus does where it is told to. To drop the classic ones is the scraper's choice, too.
// One method with three codes is about 80 time series on each side; count on that when you raise [MaxMethods].
//
// Exemplars need the format that has room for them: EnableOpenMetrics in promhttp, and exemplar-storage in Prometheus.
//
// # The dashboard
//
// docs/grafana has a dashboard for all of this, and the file that provisions it.
//
// # Without Prometheus
//
// The examples of this package are recipes: expvar has the counters of a bus as a variable, statsd sends them as
// datagrams. Both read a StatsReporter and need nothing of Prometheus. For everything else the shortest way is an
// OpenTelemetry Collector whose prometheus receiver reads /metrics and whose exporters pass on what it read, whatever the
// other end is; for a program that exports by itself, the bridge
// go.opentelemetry.io/contrib/bridges/prometheus makes a registry a producer of the OpenTelemetry SDK.
package metrics
