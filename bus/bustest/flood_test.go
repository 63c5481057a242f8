package bustest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// A peer that sends as fast as it can, what costs more to answer than to send, fills nobody's memory. What is too much is
// dropped and counted, and the service goes on.
func TestFloodsAreBounded(t *testing.T) {
	n := 1
	if full() {
		n = 10
	}
	names := []byte(strings.Repeat("00000000001\n", 255))
	for name, flood := range map[string]struct {
		n int
		m nats.Msg
	}{
		"probes":   {n * 150_000, nats.Msg{Subject: "c.00000000000", Header: nats.Header{"Rpc-Ctl": {"ping"}}, Data: names}},
		"requests": {n * 300_000, nats.Msg{Subject: "e.svc.none", Data: []byte("x")}},
		"big ones": {n * 5_000, nats.Msg{Subject: "e.svc.work", Data: make([]byte, 100_000)}},
	} {
		t.Run(name, func(t *testing.T) {
			url, _, _ := strings.Cut(start(t, "broker", "").said, " ")
			id := start(t, "host", url).said
			caller := dial(t, url)
			weigh := endpoint.Caller[struct{}, *scale](caller, "host.weigh")
			nc, err := nats.Connect(url)
			assert.NoError(t, err)
			defer nc.Close()
			sub, err := nc.SubscribeSync("in.x") // so that there is somebody to answer to
			assert.NoError(t, err)
			assert.NoError(t, sub.SetPendingLimits(10, 1<<20))
			m := flood.m
			m.Subject, m.Reply = "_RPC.svc."+id+"."+m.Subject, "in.x"
			for range flood.n {
				assert.NoError(t, nc.PublishMsg(&m))
			}
			assert.NoError(t, nc.FlushTimeout(time.Minute))
			begin := time.Now()
			s, err := weigh(t.Context(), struct{}{})
			assert.NoError(t, err, "it goes on")
			t.Logf("%d messages: the heap took %.1f MB at most, %d were dropped, who came next waited for %v (full: %v)",
				flood.n, float64(s.Peak)/1e6, s.Dropped, time.Since(begin), full())
			assert.True(t, s.Peak < 350e6, "the heap")
		})
	}
}
