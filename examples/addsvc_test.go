package examples_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/examples/addsvc"
	"postbus.example/internal/assert"
)

func TestAddsvcIsShort(t *testing.T) {
	n := code(t, "addsvc", "addsvc/server", "addsvc/gateway", "addsvc/cli", "telemetry")
	assert.True(t, n <= 250, fmt.Sprintf("%d lines of code, with what it shares", n))
}

// The service's errors cross as what they are. Go kit's client gets text.
func TestAddsvcErrors(t *testing.T) {
	m := endpoint.NewMux()
	assert.NoError(t, m.Serve("addsvc", endpoint.Service(addsvc.New())))
	svc := endpoint.Client[addsvc.Service](m, "addsvc")
	for _, tc := range []struct {
		a, b int
		want error
	}{
		{1, 2, nil},
		{-1, 1, nil},
		{0, 0, addsvc.ErrTwoZeroes},
		{1<<31 - 1, 0, nil},
		{1<<31 - 1, 1, addsvc.ErrIntOverflow},
		{1 << 31, 0, addsvc.ErrIntOverflow},
		{-1 << 31, 0, nil},
		{-1 << 31, -1, addsvc.ErrIntOverflow},
		{1<<63 - 1, 1<<63 - 1, addsvc.ErrIntOverflow},
		{-1 << 63, -1 << 63, addsvc.ErrIntOverflow},
	} {
		reply, err := svc.Sum(t.Context(), &addsvc.SumRequest{A: tc.a, B: tc.b})
		assert.True(t, errors.Is(err, tc.want), fmt.Sprint(tc.a, "+", tc.b, ": ", err))
		if err == nil {
			assert.Equal(t, reply.V, tc.a+tc.b)
		}
	}
	reply, err := svc.Concat(t.Context(), &addsvc.ConcatRequest{A: "12345", B: "67890"})
	assert.NoError(t, err)
	assert.Equal(t, reply.V, "1234567890")
	_, err = svc.Concat(t.Context(), &addsvc.ConcatRequest{A: "12345", B: "67890x"})
	assert.ErrorIs(t, err, addsvc.ErrMaxSizeExceeded)
}

func TestAddsvc(t *testing.T) {
	url := broker(t).URL()
	server, other := run(t, "addsvc/server", "-nats", url), run(t, "addsvc/server", "-nats", url)
	gateway := run(t, "addsvc/gateway", "-nats", url, "-http", "127.0.0.1:0", "-trace", "stdout")
	scrape := []string{server.url(t) + "/metrics", other.url(t) + "/metrics"}
	front := gateway.url(t)

	for range 20 {
		r, body := post(t, front+"/addsvc/sum", `{"a":1,"b":2}`)
		assert.Equal(t, r.StatusCode, 200, body)
		assert.Equal(t, body, `{"v":3}`)
	}
	_, body := post(t, front+"/addsvc/concat", `{"a":"x","b":"y"}`)
	assert.Equal(t, body, `{"v":"xy"}`)
	for path, request := range map[string]string{
		"/addsvc/sum": `{"a":0,"b":0}`, "/addsvc/sum?": `{"a":2147483647,"b":1}`, "/addsvc/concat": `{"a":"123456","b":"123456"}`,
	} {
		r, body := post(t, front+path, request)
		assert.Equal(t, r.StatusCode, 400, body)
	}
	cli := run(t, "addsvc/cli", "-nats", url, "sum", "1", "2")
	assert.NoError(t, cli.wait(t))
	assert.Equal(t, cli.stdout(), "3\n")
	cli = run(t, "addsvc/cli", "-nats", url, "sum", "0", "0")
	assert.True(t, cli.wait(t) != nil, "exit code of a failed call")
	assert.True(t, len(cli.log("invalid_argument: "+addsvc.ErrTwoZeroes.Error())) == 1, "the error is shown")

	ok := 0
	for _, url := range scrape {
		ok += count(t, get(t, url), "rpc_server_call_duration_seconds_count", `rpc_method="addsvc/sum"`, `"ok"`)
	}
	assert.Equal(t, ok, 21, "both instances together")
	assert.Equal(t, count(t, get(t, front+"/metrics"), "rpc_client_call_duration_seconds_count", `rpc_method="addsvc/sum"`, `"ok"`), 20)

	for _, p := range []*program{gateway, server, other} {
		p.terminate(t)
	}
	assert.Contains(t, gateway.stdout(), `"Name":"addsvc/sum"`)
}

// count adds up the samples of a metric whose labels have all of the parts.
func count(t *testing.T, scrape, metric string, parts ...string) int {
	t.Helper()
	n := 0
samples:
	for l := range strings.Lines(scrape) {
		if !strings.HasPrefix(l, metric+"{") {
			continue
		}
		for _, p := range parts {
			if !strings.Contains(l, p) {
				continue samples
			}
		}
		v, err := strconv.ParseFloat(strings.Fields(l[strings.LastIndexByte(l, '}')+1:])[0], 64)
		assert.NoError(t, err, l)
		n += int(v)
	}
	return n
}

// Go kit's own addsvc has the limiter inside of the breaker: here one burst is refused, and a second later all is well.
func TestAddsvcLimit(t *testing.T) {
	url := broker(t).URL()
	server := run(t, "addsvc/server", "-nats", url, "-rate", "1", "-burst", "1")
	gateway := run(t, "addsvc/gateway", "-nats", url, "-http", "127.0.0.1:0")
	server.url(t)
	front := gateway.url(t)
	codes := map[int]int{}
	for range 12 {
		r, _ := post(t, front+"/addsvc/sum", `{"a":1,"b":2}`)
		codes[r.StatusCode]++
		if r.StatusCode == http.StatusTooManyRequests {
			assert.Equal(t, r.Header.Get("Retry-After"), "1")
		}
	}
	assert.Equal(t, codes, map[int]int{200: 1, 429: 11})
	time.Sleep(1100 * time.Millisecond) // the limiter lives in another process, on the real clock
	r, body := post(t, front+"/addsvc/sum", `{"a":1,"b":2}`)
	assert.Equal(t, r.StatusCode, 200, body)
}

// The typed errors over the real bus.
func TestAddsvcErrorsOverTheBus(t *testing.T) {
	url := broker(t).URL()
	run(t, "addsvc/server", "-nats", url).url(t)
	b, err := bus.Connect(url)
	assert.NoError(t, err)
	defer func() { _ = b.Close() }()
	svc := endpoint.Client[addsvc.Service](b, "addsvc")
	_, err = svc.Sum(t.Context(), &addsvc.SumRequest{})
	assert.ErrorIs(t, err, addsvc.ErrTwoZeroes)
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	_, err = svc.Sum(t.Context(), &addsvc.SumRequest{A: 1 << 31})
	assert.ErrorIs(t, err, addsvc.ErrIntOverflow)
	_, err = svc.Concat(t.Context(), &addsvc.ConcatRequest{A: "12345678901"})
	assert.ErrorIs(t, err, addsvc.ErrMaxSizeExceeded)
}
