package metrics_test

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"postbus.example/endpoint"
)

// variables makes a variable of what a bus counts: JSON, read when somebody asks. Latencies are upper bounds in
// milliseconds. It needs no Prometheus and no middleware.
func variables(of endpoint.StatsReporter) expvar.Func {
	type counts struct {
		Calls, Failures, Refused, Expired uint64
		InFlight, Waiting                 int64
		P50, P99                          int64 `json:",omitempty"`
	}
	return func() any {
		vars := map[string]counts{}
		for _, s := range of.Stats() {
			if s.Subject != "" { // the transport itself
				p50, p99 := s.Latency.Quantile(0.5), s.Latency.Quantile(0.99)
				vars[s.Subject] = counts{
					s.Calls, s.Failures(), s.Refused, s.Expired, s.InFlight, s.Waiting, p50.Milliseconds(), p99.Milliseconds(),
				}
			}
		}
		return vars
	}
}

// Expvar: the counters of a bus as a variable. A program publishes it once,
//
//	expvar.Publish("rpc", variables(bus))
//
// and finds it under /debug/vars of http.DefaultServeMux, with everything else there is. To keep the default mux out of it,
// serve a handler of your own, as here; expvar.Handler() is one for all that is published.
func Example_expvar() {
	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add))
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")
	for _, a := range []int{1, 2, -3} {
		_, _ = call(context.Background(), &addRequest{A: a})
	}

	rpc := variables(mux)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, rpc.String())
	}))
	defer server.Close()

	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	var vars map[string]struct{ Calls, Failures int }
	_ = json.NewDecoder(resp.Body).Decode(&vars)
	fmt.Println("svc.add:", vars["svc.add"].Calls, "calls,", vars["svc.add"].Failures, "failed")
	// Output: svc.add: 3 calls, 1 failed
}
