package metrics

// The names of all metrics and labels. Dashboards and alerts of strangers are made of them, so they change here and
// nowhere else, or better never.
//
// The two call durations and their labels are what an OpenTelemetry exporter makes of the RPC conventions
// (https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/): dots become underscores, the unit is appended. The label
// of the code follows the newest conventions that the Go API has, v1.43.0, so that one dashboard serves programs that are
// measured by either; later conventions call it rpc.status_code. What else there is has no convention (the sizes that there
// once were are deprecated as ambiguous), so it has names of our own.
const (
	labelSystem   = "rpc_system_name"
	labelMethod   = "rpc_method"
	labelCode     = "rpc_response_status_code"
	labelError    = "error_type"
	labelSubject  = "rpc_subject"         // of bus counters and gauges
	labelInstance = "service_instance_id" // of bus counters: two buses in one process

	systemName  = "postbus"
	otherMethod = "_OTHER"   // the convention's word for a method that is not known
	exemplarKey = "trace_id" // of an exemplar; where Grafana and Tempo look for it

	serverPrefix = "rpc_server_"
	clientPrefix = "rpc_client_"
	busPrefix    = "rpc_bus_"
	gaugePrefix  = "rpc_"

	nameDuration = "call_duration_seconds"
	nameInFlight = "calls_in_flight"
	nameRequest  = "call_request_size_bytes"
	nameReply    = "call_reply_size_bytes"
)
