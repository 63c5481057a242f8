package bustest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

const (
	processRole = "POSTBUS_TEST_ROLE"
	processURL  = "POSTBUS_TEST_URL"
)

// process is this test binary, started again in a role.
type process struct {
	*exec.Cmd

	in   io.Closer
	said string // when it was ready
}

// start starts a process and waits until it is ready. It ends with the test.
func start(t *testing.T, role, url string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], "-test.run=^TestProcessRole$")}
	p.Env = append(os.Environ(), processRole+"="+role, processURL+"="+url)
	p.Stderr = t.Output()
	in, err := p.StdinPipe()
	assert.NoError(t, err)
	p.in = in
	out, err := p.StdoutPipe()
	assert.NoError(t, err)
	assert.NoError(t, p.Start())
	t.Cleanup(p.end)
	line, err := bufio.NewReader(out).ReadString('\n')
	assert.NoError(t, err, role)
	p.said = strings.TrimSpace(line)
	return p
}

// end asks the process to end, and sees to it.
func (p *process) end() {
	if p.ProcessState != nil {
		return
	}
	_ = p.in.Close()
	defer time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() }).Stop()
	_ = p.Wait()
}

// inCluster is the configuration of a server that takes others into its cluster, and goes into that of others.
func inCluster(others ...string) string {
	for i, addr := range others {
		others[i] = "nats://" + addr
	}
	return fmt.Sprintf("cluster { name: c, listen: \"127.0.0.1:-1\", pool_size: -1, routes: [%s] }", strings.Join(others, ", "))
}

// tally is what a service process says of itself.
type tally struct {
	Ran     int64 // how often the handler began
	Expired uint64
}

// TestProcessRole is no test but what other processes do; by itself it does nothing.
func TestProcessRole(t *testing.T) {
	url := os.Getenv(processURL)
	var said string
	switch os.Getenv(processRole) {
	case "broker":
		s, err := embedded.Start(embedded.WithConfig(inCluster()))
		assert.NoError(t, err)
		defer s.Shutdown()
		said = s.URL() + " " + s.NATS().ClusterAddr().String()
	case "service":
		b := dial(t, url)
		said = b.ID()
		var ran atomic.Int64
		work := func(_ context.Context, r []byte) ([]byte, error) {
			ran.Add(1)
			d, err := time.ParseDuration(string(r))
			time.Sleep(d) // the work
			return r, err
		}
		assert.NoError(t, b.Serve("svc.work", endpoint.New(work, endpoint.Codec(codec.Raw), endpoint.Idempotent())))
		assert.NoError(t, b.Serve("svc.tally", endpoint.New(func(context.Context, struct{}) (*tally, error) {
			n := tally{Ran: ran.Load()}
			for _, s := range b.Stats() {
				n.Expired += s.Expired
			}
			return &n, nil
		})))
	case "host":
		said = host(t, url)
	default:
		return
	}
	_, _ = os.Stdout.WriteString(said + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}
