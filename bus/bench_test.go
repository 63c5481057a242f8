package bus_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"postbus.example/bus"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// BenchmarkCall puts nats.go by hand and the bus side by side in one run: caller, service and broker are three processes
// on loopback, as they are three machines in life.
//
//	go test -run '^$' -bench Call -benchtime 2s ./bus
func BenchmarkCall(b *testing.B) {
	url := play(b, "broker", "")
	play(b, "service", url)
	client, err := nats.Connect(url)
	assert.NoError(b, err)
	b.Cleanup(client.Close)
	caller, err := bus.Connect(url, quiet())
	assert.NoError(b, err)
	b.Cleanup(func() { _ = caller.Close() })
	body := []byte(`{"A":1,"B":2}`)
	echoes, sum, ctx := echoer(caller, "bus.raw"), adder(caller, "bus.json"), context.Background()
	calls := map[string]func() error{
		"raw/nats": func() error {
			_, err := client.Request("hand.raw", body, 10*time.Second)
			return err
		},
		"raw/bus": func() error {
			_, err := echoes(ctx, body)
			return err
		},
		"json/nats": func() error { return sumByHand(client) },
		"json/bus": func() error {
			_, err := sum(ctx, &AddRequest{1, 2})
			return err
		},
	}
	for _, callers := range []int{1, 64, 256} {
		for _, name := range []string{"raw/nats", "raw/bus", "json/nats", "json/bus"} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) { together(b, callers, calls[name]) })
		}
	}
}

// together runs the call from n goroutines at once.
func together(b *testing.B, n int, call func() error) {
	b.Helper()
	b.ReportAllocs()
	if n == 1 {
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.SetParallelism(max(n/runtime.GOMAXPROCS(0), 1))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func sumByHand(nc *nats.Conn) error {
	body, err := json.Marshal(&AddRequest{1, 2})
	if err != nil {
		return err
	}
	m, err := nc.Request("hand.json", body, 10*time.Second)
	if err != nil {
		return err
	}
	var out AddResponse
	return json.Unmarshal(m.Data, &out)
}

// byHand serves what sumByHand and its like call.
func byHand(tb testing.TB, nc *nats.Conn) {
	tb.Helper()
	_, err := nc.QueueSubscribe("hand.raw", "q", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	assert.NoError(tb, err)
	_, err = nc.QueueSubscribe("hand.json", "q", func(m *nats.Msg) {
		var r AddRequest
		if json.Unmarshal(m.Data, &r) != nil {
			return
		}
		if out, err := json.Marshal(&AddResponse{r.A + r.B}); err == nil {
			_ = m.Respond(out)
		}
	})
	assert.NoError(tb, err)
	assert.NoError(tb, nc.Flush())
}

const (
	benchRole = "POSTBUS_BENCH_ROLE"
	benchURL  = "POSTBUS_BENCH_URL"
)

// play starts this test binary again in a role, and returns the line it says when it is ready. It ends with the benchmark.
func play(b *testing.B, role, url string) string {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestBenchRole$")
	cmd.Env = append(os.Environ(), benchRole+"="+role, benchURL+"="+url)
	cmd.Stderr = b.Output()
	in, err := cmd.StdinPipe()
	assert.NoError(b, err)
	out, err := cmd.StdoutPipe()
	assert.NoError(b, err)
	assert.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	assert.NoError(b, err, role)
	return strings.TrimSpace(line)
}

// TestBenchRole is not a test but a role of BenchmarkCall's other processes; by itself it does nothing.
func TestBenchRole(t *testing.T) {
	url := os.Getenv(benchURL)
	switch os.Getenv(benchRole) {
	case "broker":
		s, err := embedded.Start()
		assert.NoError(t, err)
		defer s.Shutdown()
		url = s.URL()
	case "service":
		nc, err := nats.Connect(url)
		assert.NoError(t, err)
		defer nc.Close()
		byHand(t, nc)
		b, err := bus.Connect(url, quiet())
		assert.NoError(t, err)
		defer func() { _ = b.Close() }()
		serve(t, b, "bus.raw", rawEndpoint(echo))
		serve(t, b, "bus.json", endpoint.New(add))
	default:
		return
	}
	fmt.Println(url)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
}
