package examples_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"postbus.example/bus"
	"postbus.example/endpoint"
	"postbus.example/examples/stringsvc"
	"postbus.example/internal/assert"
	"postbus.example/middleware"
)

func TestStringsvcIsShort(t *testing.T) {
	n := code(t, "stringsvc", "stringsvc/uppercase", "stringsvc/count")
	assert.True(t, n <= 120, fmt.Sprintf("%d lines of code", n))
}

// One call goes through three services, and the logs of all say which call it was.
func TestStringsvcIsOneTrace(t *testing.T) {
	url := broker(t).URL()
	uppercase, number := run(t, "stringsvc/uppercase", "-nats", url, "-trace", "stdout"), run(t, "stringsvc/count", "-nats", url, "-trace", "stdout")
	scrapes := []string{uppercase.url(t) + "/metrics", number.url(t) + "/metrics"}
	b, err := bus.Connect(url)
	assert.NoError(t, err)
	defer func() { _ = b.Close() }()
	svc := endpoint.Client[stringsvc.Count](b, "count")
	reply, err := svc.Distinct(t.Context(), &stringsvc.Text{S: "Postbus"})
	assert.NoError(t, err)
	assert.Equal(t, reply.N, 6)
	_, err = svc.Distinct(t.Context(), &stringsvc.Text{})
	assert.ErrorIs(t, err, endpoint.InvalidArgument, "forwarded")

	var served []line // a line is written when a reply has gone: the last ones may be still to come
	assert.Eventually(t, func() bool {
		served = slices.DeleteFunc(slices.Concat(uppercase.log("rpc"), number.log("rpc")), func(l line) bool { return l["side"] != "server" })
		return len(served) >= 6
	}, "the logs have all calls")
	traces := map[string][]string{}
	for _, l := range served {
		id, _ := l["trace_id"].(string)
		traces[id] = append(traces[id], fmt.Sprint(l["subject"], " ", l["code"]))
	}
	assert.Equal(t, len(traces), 2, "traces")
	for id, calls := range traces {
		slices.Sort(calls)
		code := calls[1][len("count.distinct "):]
		assert.True(t, len(id) == 32 && (code == "ok" || code == "invalid_argument"), id)
		assert.Equal(t, calls, []string{"count.count ok", "count.distinct " + code, "uppercase.uppercase " + code})
	}
	for i, method := range []string{"uppercase/uppercase", "count/distinct"} {
		assert.Equal(t, count(t, get(t, scrapes[i]), "rpc_server_call_duration_seconds_count", `rpc_method="`+method+`"`), 2, method)
	}
	uppercase.terminate(t)
	number.terminate(t)
	assert.Contains(t, uppercase.stdout(), `"Name":"uppercase/uppercase"`, `"Name":"count/count"`)
}

// Of three instances one is killed under load. The calls are idempotent, so no caller sees it.
func TestStringsvcSurvivesAKill(t *testing.T) {
	url := broker(t).URL()
	var instances []*program
	for range 3 {
		instances = append(instances, run(t, "stringsvc/count", "-nats", url))
	}
	for _, p := range instances {
		p.url(t)
	}
	b, err := bus.Connect(url)
	assert.NoError(t, err)
	defer func() { _ = b.Close() }()
	svc := endpoint.Client[stringsvc.Count](b, "count",
		middleware.Client(middleware.Defaults{Retry: &middleware.RetryPolicy{AttemptTimeout: 500 * time.Millisecond}}))
	const callers, calls = 16, 500
	var wg sync.WaitGroup
	failed := make(chan error, callers*calls)
	killed := make(chan struct{})
	for i := range callers {
		wg.Go(func() {
			for j := range calls {
				if i == 0 && j == calls/4 {
					_ = instances[0].cmd.Process.Kill()
					close(killed)
				}
				if j == calls/2 {
					<-killed // so that calls of all callers come after it
				}
				if reply, err := svc.Count(t.Context(), &stringsvc.Text{S: "abc"}); err != nil || reply.N != 3 {
					failed <- fmt.Errorf("%d/%d: %w", i, j, err)
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}
