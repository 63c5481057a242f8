package metrics_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"postbus.example/endpoint"
)

// statsd returns a function that writes what a bus has counted since the last time as lines of statsd: counters (c),
// gauges (g) and the 99th percentile in milliseconds, also as a gauge: percentiles of percentiles are not worth a timer.
func statsd(w io.Writer, of endpoint.StatsReporter) func() error {
	last := map[string]endpoint.Stats{}
	return func() error {
		for _, s := range of.Stats() {
			if s.Subject == "" { // the transport itself
				continue
			}
			was := last[s.Subject]
			if s.Calls < was.Calls { // it was stopped and is served anew
				was = endpoint.Stats{}
			}
			last[s.Subject] = s
			var b strings.Builder
			line := func(name string, value any, kind string) {
				fmt.Fprintf(&b, "rpc.%s.%s.%s:%v|%s\n", s.Service, s.Name, name, value, kind)
			}
			line("calls", s.Calls-was.Calls, "c")
			line("failures", s.Failures()-was.Failures(), "c")
			line("refused", s.Refused-was.Refused, "c")
			line("in_flight", s.InFlight, "g")
			line("p99", s.Latency.Quantile(0.99).Milliseconds(), "g")
			if _, err := io.WriteString(w, b.String()); err != nil { // one datagram for each endpoint: it fits
				return err
			}
		}
		return nil
	}
}

// Statsd: the counters of a bus as datagrams. A program sends them from a goroutine of its own, until its context ends:
//
//	for tick := time.Tick(10 * time.Second); ; {
//		select {
//		case <-tick:
//			_ = send() // UDP: nobody home is no reason to stop
//		case <-ctx.Done():
//			return
//		}
//	}
//
// Plain statsd has no labels, so service and name stand in the path. For servers that have them (DogStatsD) append
// "|#code:…" to a line for each of s.Errors.
func Example_statsd() {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	conn, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	mux := endpoint.NewMux()
	_ = mux.Serve("svc.add", endpoint.New(add))
	send := statsd(conn, mux)
	call := endpoint.Caller[*addRequest, *addResponse](mux, "svc.add")

	for _, batch := range [][]int{{1, 2, -3}, {4}} {
		for _, a := range batch {
			_, _ = call(context.Background(), &addRequest{A: a})
		}
		if err := send(); err != nil {
			fmt.Println(err)
		}
		datagram := make([]byte, 1500)
		_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, _ := server.ReadFrom(datagram)
		lines, _, _ := strings.Cut(string(datagram[:n]), "rpc.svc.add.p99") // which differs from run to run
		fmt.Print(lines)
	}
	// Output:
	// rpc.svc.add.calls:3|c
	// rpc.svc.add.failures:1|c
	// rpc.svc.add.refused:0|c
	// rpc.svc.add.in_flight:0|g
	// rpc.svc.add.calls:1|c
	// rpc.svc.add.failures:0|c
	// rpc.svc.add.refused:0|c
	// rpc.svc.add.in_flight:0|g
}
