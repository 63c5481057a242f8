package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"postbus.example/internal/assert"
)

// TestMain lets the test binary stand in for the program: a child of this test runs main.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_RUN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestReadmeShowsTheProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	assert.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	assert.NoError(t, err)
	assert.Contains(t, string(readme), "```go\n"+string(program)+"```")
	lines := strings.Count(string(program), "\n")
	assert.True(t, lines <= 40, "main.go of at most 40 lines")
}

func TestQuickstart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NoError(t, err)
	addr := l.Addr().String()
	assert.NoError(t, l.Close())

	cmd := exec.Command(os.Args[0], "-http", addr)
	cmd.Env = append(os.Environ(), "QUICKSTART_RUN=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	assert.NoError(t, err)
	assert.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	line, err := bufio.NewReader(out).ReadString('\n')
	assert.NoError(t, err)
	assert.Equal(t, line, "1 + 2 = 3\n")

	var reply *http.Response
	assert.Eventually(t, func() bool {
		reply, err = http.Post("http://"+addr+"/svc/add", "application/json", strings.NewReader(`{"a":1,"b":2}`))
		return err == nil
	}, "the bridge answers")
	body, err := io.ReadAll(reply.Body)
	assert.NoError(t, err)
	assert.NoError(t, reply.Body.Close())
	assert.Equal(t, reply.StatusCode, 200)
	assert.Equal(t, string(body), `{"sum":3}`)

	assert.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		assert.NoError(t, err, "exit code 0 after SIGTERM")
	case <-time.After(20 * time.Second):
		t.Fatal("still runs 20 seconds after SIGTERM")
	}
}
