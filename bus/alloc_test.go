package bus_test

import (
	"context"
	"encoding/json"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// TestAllocUnary holds a typed call with a deadline against the same with nats.go and encoding/json by hand: caller,
// service and broker together.
func TestAllocUnary(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := bustest.Server(t)
	service, caller := connect(t, s), connect(t, s)
	serve(t, service, "svc.add", endpoint.New(add))
	sum := adder(caller, "svc.add")
	server, client := foreign(t, s), foreign(t, s)
	_, err := server.QueueSubscribe("raw.add", "q", func(m *nats.Msg) {
		var r AddRequest
		if json.Unmarshal(m.Data, &r) != nil {
			return
		}
		out, err := json.Marshal(&AddResponse{r.A + r.B})
		if err == nil {
			_ = m.Respond(out)
		}
	})
	assert.NoError(t, err)
	assert.NoError(t, server.Flush())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ours := func() {
		resp, err := sum(ctx, &AddRequest{1, 2})
		assert.NoError(t, err)
		assert.True(t, resp.Sum == 3)
	}
	raw := func() {
		body, err := json.Marshal(&AddRequest{1, 2})
		assert.NoError(t, err)
		m, err := client.Request("raw.add", body, time.Minute)
		assert.NoError(t, err)
		var resp AddResponse
		assert.NoError(t, json.Unmarshal(m.Data, &resp))
		assert.True(t, resp.Sum == 3)
	}
	a, b := allocations(ours), allocations(raw)
	t.Logf("a typed call allocates %.1f times, nats.go by hand %.1f times", a, b)
	assert.True(t, a <= b, "no more than by hand")
}

// allocations counts those of the whole process: the work is spread over goroutines that testing.AllocsPerRun sees as well,
// but it pins the process to one processor, which is not how calls run.
func allocations(f func()) float64 {
	times, _ := allocated(f)
	return times
}

// allocated is allocations with how many bytes they take.
func allocated(f func()) (times, bytes float64) {
	const calls = 2000
	for range 200 {
		f()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / calls, float64(after.TotalAlloc-before.TotalAlloc) / calls
}
