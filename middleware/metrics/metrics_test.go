package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/middleware/metrics"
)

// TestScrape is the promise as a whole: ten calls, of which three find nothing, and what a scraper then sees.
func TestScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		m := endpoint.NewMux()
		m.Use(metrics.New(reg))
		serve(t, m, "svc.add", endpoint.New(add))
		calls(t, m, 7, 3)

		lines := scrape(t, reg)
		assert.Equal(t, pick(lines, "call_duration_seconds_count"), []string{
			`rpc_client_call_duration_seconds_count{error_type="",rpc_method="svc/add",rpc_response_status_code="ok",rpc_system_name="postbus"} 7`,
			`rpc_client_call_duration_seconds_count{error_type="not_found",rpc_method="svc/add",rpc_response_status_code="not_found",rpc_system_name="postbus"} 3`,
			`rpc_server_call_duration_seconds_count{error_type="",rpc_method="svc/add",rpc_response_status_code="ok",rpc_system_name="postbus"} 7`,
			`rpc_server_call_duration_seconds_count{error_type="not_found",rpc_method="svc/add",rpc_response_status_code="not_found",rpc_system_name="postbus"} 3`,
		})
		var rest []string
		for _, line := range lines {
			if !strings.Contains(line, "duration") && !strings.Contains(line, "_bucket") {
				rest = append(rest, line)
			}
		}
		assert.Equal(t, rest, []string{
			`rpc_client_call_reply_size_bytes_count{rpc_method="svc/add",rpc_system_name="postbus"} 7`,
			`rpc_client_call_reply_size_bytes_sum{rpc_method="svc/add",rpc_system_name="postbus"} 63`,
			`rpc_client_call_request_size_bytes_count{rpc_method="svc/add",rpc_system_name="postbus"} 10`,
			`rpc_client_call_request_size_bytes_sum{rpc_method="svc/add",rpc_system_name="postbus"} 133`,
			`rpc_client_calls_in_flight{rpc_method="svc/add",rpc_system_name="postbus"} 0`,
			`rpc_server_call_reply_size_bytes_count{rpc_method="svc/add",rpc_system_name="postbus"} 7`,
			`rpc_server_call_reply_size_bytes_sum{rpc_method="svc/add",rpc_system_name="postbus"} 63`,
			`rpc_server_call_request_size_bytes_count{rpc_method="svc/add",rpc_system_name="postbus"} 10`,
			`rpc_server_call_request_size_bytes_sum{rpc_method="svc/add",rpc_system_name="postbus"} 133`,
			`rpc_server_calls_in_flight{rpc_method="svc/add",rpc_system_name="postbus"} 0`,
		})
	})
}

func TestBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		h := metrics.New(reg)(func(context.Context, *endpoint.Call) (any, error) {
			time.Sleep(300 * time.Millisecond)
			return reply, nil
		})
		_, _ = h(t.Context(), newCall(endpoint.ServerSide, "svc", "add"))
		families, err := reg.Gather()
		assert.NoError(t, err)
		seen := map[string]string{}
		for _, f := range families {
			h := f.GetMetric()[0].GetHistogram()
			if h == nil {
				continue
			}
			var bounds []float64
			for _, b := range h.GetBucket() {
				bounds = append(bounds, b.GetUpperBound())
			}
			seen[f.GetName()] = fmt.Sprint(h.GetSampleSum(), bounds, h.GetSchema(), len(h.GetPositiveSpan())+int(h.GetZeroCount()), f.GetUnit())
		}
		sizes := " [64 256 1024 4096 16384 65536 262144 1.048576e+06 4.194304e+06 1.6777216e+07 6.7108864e+07] 3 1bytes"
		assert.Equal(t, seen, map[string]string{
			"rpc_server_call_duration_seconds":   "0.3 [0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10] 3 1seconds",
			"rpc_server_call_request_size_bytes": "0" + sizes,
			"rpc_server_call_reply_size_bytes":   "0" + sizes,
		})
	})
}

// TestNativeBucketsAreBounded has durations that would each need a bucket of their own.
func TestNativeBucketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		took := float64(time.Microsecond)
		h := metrics.New(reg)(func(context.Context, *endpoint.Call) (any, error) {
			time.Sleep(time.Duration(took))
			return reply, nil
		})
		for range 200 {
			_, _ = h(t.Context(), newCall(endpoint.ServerSide, "svc", "add"))
			took *= 1.1
		}
		families, err := reg.Gather()
		assert.NoError(t, err)
		var buckets uint32
		for _, f := range families {
			if f.GetName() == "rpc_server_call_duration_seconds" {
				for _, span := range f.GetMetric()[0].GetHistogram().GetPositiveSpan() {
					buckets += span.GetLength()
				}
			}
		}
		assert.True(t, buckets > 50 && buckets <= 160, fmt.Sprint(buckets))
	})
}

// codesOf returns the codes that were counted for a side, with their numbers.
func codesOf(t testing.TB, reg prometheus.Gatherer, side string) string {
	t.Helper()
	var seen []string
	for _, line := range pick(scrape(t, reg), "rpc_"+side+"_call_duration_seconds_count") {
		_, code, _ := strings.Cut(line, `rpc_response_status_code="`)
		code, n, _ := strings.Cut(code, `"`)
		seen = append(seen, code+n[strings.LastIndexByte(n, ' '):])
	}
	return strings.Join(seen, ", ")
}

func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		name           string
		err            error
		server, client string
	}{
		{"ok", nil, "ok 1", "ok 1"},
		{"authored", endpoint.Aborted.New("x"), "aborted 1", "aborted 1"},
		{"the last code", endpoint.Unauthenticated, "unauthenticated 1", "unauthenticated 1"},
		{"foreign", errors.New("x"), "unknown 1", "unknown 1"},
		{"context", context.DeadlineExceeded, "deadline_exceeded 1", "deadline_exceeded 1"},
		{"a peer's is not ours to tell", endpoint.NotFound.New("x").AsRemote(), "internal 1", "not_found 1"},
		{"an error of code ok", endpoint.OK.New("x"), "unknown 1", "unknown 1"},
		{"no code at all", endpoint.Code(200).New("x"), "unknown 1", "unknown 1"},
		{"a nil error", (*endpoint.Error)(nil), "unknown 1", "unknown 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			h := metrics.New(reg)(fail(tc.err))
			for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
				_, err := h(t.Context(), newCall(side, "svc", "add"))
				assert.Equal(t, err, tc.err, "passed on")
			}
			assert.Equal(t, codesOf(t, reg, "server"), tc.server)
			assert.Equal(t, codesOf(t, reg, "client"), tc.client)
		})
	}
}

// TestCodesAreAll fails when a code is appended: the arrays by code have to grow then.
func TestCodesAreAll(t *testing.T) {
	_, found := endpoint.ParseCode((endpoint.Unauthenticated + 1).String())
	assert.True(t, !found, "Unauthenticated is the last code")
}

func TestPanicGoesOn(t *testing.T) {
	for _, side := range []endpoint.Side{endpoint.ServerSide, endpoint.ClientSide} {
		reg := prometheus.NewPedanticRegistry()
		h := metrics.New(reg)(func(context.Context, *endpoint.Call) (any, error) { panic("index out of range") })
		func() {
			defer func() { assert.Equal(t, recover(), any("index out of range")) }()
			_, _ = h(t.Context(), newCall(side, "svc", "add"))
		}()
		done := make(chan struct{})
		gone := metrics.New(reg)(func(context.Context, *endpoint.Call) (any, error) { runtime.Goexit(); return nil, nil })
		go func() {
			defer close(done)
			_, _ = gone(t.Context(), newCall(side, "svc", "add"))
		}()
		<-done
		assert.Equal(t, codesOf(t, reg, side.String()), "internal 2")
		assert.Equal(t, len(pick(scrape(t, reg), "in_flight", "} 0")), 1)
	}
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		m := endpoint.NewMux()
		m.Use(metrics.New(reg))
		leave := make(chan struct{})
		serve(t, m, "svc.add", endpoint.New(func(ctx context.Context, r *addRequest) (*addResponse, error) {
			<-leave
			return add(ctx, r)
		}))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { calls(t, m, 1, 0) })
		}
		synctest.Wait()
		assert.Equal(t, pick(scrape(t, reg), "in_flight"), []string{
			`rpc_client_calls_in_flight{rpc_method="svc/add",rpc_system_name="postbus"} 5`,
			`rpc_server_calls_in_flight{rpc_method="svc/add",rpc_system_name="postbus"} 5`,
		})
		close(leave)
		wg.Wait()
		synctest.Wait()
		assert.Equal(t, len(pick(scrape(t, reg), "in_flight", "} 0")), 2)
		assert.Equal(t, codesOf(t, reg, "server"), "ok 5")
	})
}

// TestStreams counts each stream once, at its end. A size is counted where there is one message.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		m := endpoint.NewMux()
		m.Use(metrics.New(reg))
		serve(t, m, "svc.count", endpoint.NewServerStream(func(ctx context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
			return func(yield func(*addResponse, error) bool) {
				for n := range r.A {
					time.Sleep(time.Second)
					if ctx.Err() != nil || !yield(&addResponse{Sum: n}, nil) {
						return
					}
				}
				yield(nil, endpoint.OutOfRange.New("that was all"))
			}
		}))
		serve(t, m, "svc.total", endpoint.NewClientStream(func(_ context.Context, in iter.Seq2[*addRequest, error]) (*addResponse, error) {
			sum := 0
			for r, err := range in {
				if err != nil {
					return nil, err
				}
				sum += r.A
			}
			return &addResponse{Sum: sum}, nil
		}))
		count := endpoint.ServerStreamCaller[*addRequest, *addResponse](m, "svc.count")
		for range count(t.Context(), &addRequest{A: 3}) {
		}
		for range count(t.Context(), &addRequest{A: 3}) {
			break
		}
		_, err := endpoint.ClientStreamCaller[*addRequest, *addResponse](m, "svc.total")(t.Context(), func(yield func(*addRequest, error) bool) {
			_ = yield(&addRequest{A: 1}, nil) && yield(&addRequest{A: 2}, nil)
		})
		assert.NoError(t, err)
		synctest.Wait()
		time.Sleep(time.Minute)
		lines := scrape(t, reg)
		assert.Equal(t, codesOf(t, reg, "client"), "ok 1, canceled 1, out_of_range 1")
		assert.Equal(t, pick(lines, "rpc_client_call_duration_seconds_sum", "out_of_range"), []string{
			`rpc_client_call_duration_seconds_sum{error_type="out_of_range",rpc_method="svc/count",rpc_response_status_code="out_of_range",rpc_system_name="postbus"} 3`,
		})
		assert.Equal(t, len(pick(lines, "rpc_server_call_duration_seconds_count", "svc/count", "out_of_range", "} 1")), 1)
		assert.Equal(t, pick(lines, "size_bytes_count"), []string{
			`rpc_client_call_reply_size_bytes_count{rpc_method="svc/total",rpc_system_name="postbus"} 1`,
			`rpc_client_call_request_size_bytes_count{rpc_method="svc/count",rpc_system_name="postbus"} 2`,
			`rpc_server_call_reply_size_bytes_count{rpc_method="svc/total",rpc_system_name="postbus"} 1`,
			`rpc_server_call_request_size_bytes_count{rpc_method="svc/count",rpc_system_name="postbus"} 2`,
		})
		assert.Equal(t, len(pick(lines, "in_flight", "} 0")), 4)
	})
}

// TestTwoBuses has two transports on one registerer, each with a middleware value of its own, and one more that wraps it.
func TestTwoBuses(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		m := endpoint.NewMux()
		m.Use(metrics.New(reg))
		serve(t, m, "svc.add", endpoint.New(add))
		calls(t, m, 2, 1)
	}
	assert.Equal(t, codesOf(t, reg, "server"), "ok 4, not_found 2")

	reg = prometheus.NewPedanticRegistry()
	for _, bus := range []string{"a", "b", "b"} {
		h := metrics.New(prometheus.WrapRegistererWith(prometheus.Labels{"bus": bus}, reg))(ok)
		_, err := h(t.Context(), newCall(endpoint.ClientSide, "svc", "add"))
		assert.NoError(t, err)
	}
	assert.Equal(t, len(pick(scrape(t, reg), "duration_seconds_count", `bus="a"`, "} 1")), 1)
	assert.Equal(t, len(pick(scrape(t, reg), "duration_seconds_count", `bus="b"`, "} 2")), 1)
}

// TestTwoNames serves one endpoint under two names: its middleware is the same closure.
func TestTwoNames(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := endpoint.NewMux()
	ep := endpoint.New(add, metrics.New(reg))
	serve(t, m, "svc.add", ep)
	serve(t, m, "svc.plus", ep)
	serve(t, m, "other.plus", ep)
	for range 2 {
		for _, subject := range []string{"svc.add", "svc.plus", "other.plus"} {
			_, err := endpoint.Caller[*addRequest, *addResponse](m, subject)(t.Context(), &addRequest{})
			assert.NoError(t, err)
		}
	}
	lines := pick(scrape(t, reg), "duration_seconds_count", "} 2")
	assert.Equal(t, len(lines), 3)
	assert.Contains(t, strings.Join(lines, "\n"), `"svc/add"`, `"svc/plus"`, `"other/plus"`)
}

func TestFaults(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rpc_client_call_duration_seconds", Help: "Mine."}, []string{"path"}), //nolint:promlinter // in the way
		prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // it looks the same to a registry
			Name: "rpc_server_calls_in_flight", Help: "Calls and streams that have not ended at the server.",
		}, []string{"rpc_system_name", "rpc_method"}),
	)
	mw := metrics.New(reg, metrics.MaxMethods(0))
	called := false
	h := mw(func(context.Context, *endpoint.Call) (any, error) { called = true; return reply, nil })

	_, err := endpoint.Caller[*addRequest, *addResponse](transport(h), "svc.add")(t.Context(), &addRequest{})
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, endpoint.OutcomeOf(err), endpoint.NotSent)
	assert.Contains(t, err.Error(), "metrics.New", "MaxMethods(0)", "rpc_client_call_duration_seconds", "*prometheus.GaugeVec is needed")

	_, err = h(t.Context(), newCall(endpoint.ServerSide, "svc", "add"))
	e, _ := errors.AsType[*endpoint.Error](err)
	assert.Equal(t, fmt.Sprint(e.Code, e.Reason(), e.Outcome(), e.Message), fmt.Sprint("internal", "construction", "not_executed", ""))
	assert.Contains(t, e.Error(), "rpc_client_call_duration_seconds")
	assert.True(t, !called, "nothing ran")
}

func TestNilRegisterer(t *testing.T) {
	for _, reg := range []prometheus.Registerer{nil, (*prometheus.Registry)(nil), prometheus.WrapRegistererWith(nil, nil)} {
		h := metrics.New(reg, nil)(ok)
		got, err := h(t.Context(), newCall(endpoint.ServerSide, "svc", "add"))
		assert.NoError(t, err)
		assert.Equal(t, got, reply)
		metrics.Gauges(reg)("x", "svc.add", 1)
	}
}

// TestHostileNames makes callers for whatever a stranger asks for, as a bridge may.
func TestHostileNames(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	mw := metrics.New(reg, metrics.MaxMethods(10))
	h := mw(ok)
	hostile := []string{"", "\xff", "a\"} 1\nrpc_x{", strings.Repeat("x", 1<<20), "_OTHER", "été", "\x00"}
	for i := range 1000 {
		hostile = append(hostile, fmt.Sprintf("n%d", i))
	}
	for _, name := range hostile {
		for _, side := range []endpoint.Side{endpoint.ClientSide, endpoint.ServerSide, 0} {
			_, err := h(t.Context(), newCall(side, "svc", name))
			assert.NoError(t, err)
		}
	}
	for side, n := range map[string]int{"client": 2 * len(hostile), "server": len(hostile)} { // side 0 counts as a client
		lines := pick(scrape(t, reg), "rpc_"+side+"_call_duration_seconds_count")
		assert.Equal(t, len(lines), 10+1, side)
		other := pick(lines, `rpc_method="_OTHER"`)
		assert.Equal(t, len(other), 1, side)
		assert.True(t, strings.HasSuffix(other[0], fmt.Sprintf(" %d", n-10*n/len(hostile))), other[0])
		assert.Equal(t, len(pick(scrape(t, reg), "rpc_"+side+"_calls_in_flight")), 11, side)
	}
	for _, line := range scrape(t, reg) {
		assert.True(t, len(line) < 2000, "no label without end")
	}

	// The names of callers take no room from those of handlers.
	reg = prometheus.NewPedanticRegistry()
	h = metrics.New(reg, metrics.MaxMethods(1))(ok)
	_, _ = h(t.Context(), newCall(endpoint.ClientSide, "svc", "stranger"))
	_, _ = h(t.Context(), newCall(endpoint.ServerSide, "svc", "add"))
	assert.Equal(t, len(pick(scrape(t, reg), "rpc_server_call_duration_seconds_count", "svc/add")), 1)
}

func TestDefaultMaxMethods(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	mw := metrics.New(reg)
	for i := range 1002 {
		_, _ = mw(ok)(t.Context(), newCall(endpoint.ClientSide, "svc", fmt.Sprintf("n%d", i)))
	}
	lines := pick(scrape(t, reg), "rpc_client_call_duration_seconds_count")
	assert.Equal(t, len(lines), 1001)
	assert.True(t, strings.HasSuffix(pick(lines, "_OTHER")[0], " 2"), "two had no room")
}

func TestConcurrency(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	h := metrics.New(reg, metrics.MaxMethods(4))(func(_ context.Context, c *endpoint.Call) (any, error) {
		if c.Spec.Name == "n3" {
			return nil, endpoint.NotFound
		}
		return reply, nil
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				c := newCall(endpoint.ServerSide, "svc", fmt.Sprintf("n%d", i%5))
				c.SetTrace(traced)
				_, _ = h(context.Background(), c)
			}
		})
		wg.Go(func() { _ = scrape(t, reg) })
	}
	wg.Wait()
	total := 0
	for _, line := range pick(scrape(t, reg), "rpc_server_call_duration_seconds_count") {
		var n int
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		assert.NoError(t, err)
		total += n
	}
	assert.Equal(t, total, 8*200)
}
