package cli_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postbus.example/bus"
	"postbus.example/bus/bustest"
	"postbus.example/cmd/postbus/internal/cli"
	"postbus.example/embedded"
	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

func TestMain(m *testing.M) {
	_ = os.Unsetenv("COLUMNS") // which would wrap the help
	goleak.VerifyTestMain(m)
}

// result is what a run of the command left.
type result struct {
	code     int
	out, err string
}

// run runs the command in this process with its words, and no environment but what env has.
func run(t *testing.T, args []string, env ...string) result {
	t.Helper()
	return runWith(t, t.Context(), nil, args, env...)
}

func runWith(t *testing.T, ctx context.Context, stdin io.Reader, args []string, env ...string) result {
	t.Helper()
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	var stdout, stderr output
	code := cli.Run(ctx, args, stdin, &stdout, &stderr, env)
	return result{code, stdout.String(), stderr.String()}
}

// output is a buffer that may be read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// broker starts a NATS server on a port.
func broker(t *testing.T, opts ...embedded.Option) *embedded.Server {
	t.Helper()
	return bustest.Server(t, opts...)
}

// to gives the words that lead a command to a server.
func to(s *embedded.Server, args ...string) []string {
	return append(args, "--nats", s.URL())
}

func serve(t *testing.T, s *embedded.Server, what map[string]*endpoint.Endpoint, opts ...bus.Option) *bus.Bus {
	t.Helper()
	b := bustest.Connect(t, s, opts...)
	for subject, e := range what {
		assert.NoError(t, b.Serve(subject, e))
	}
	return b
}

// runTo runs the command with outputs of its own.
func runTo(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	return cli.Run(ctx, args, strings.NewReader(""), stdout, stderr, nil)
}
