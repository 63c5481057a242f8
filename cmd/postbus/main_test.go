// Package main_test runs the real program as a process of its own.
package main_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postbus.example/bus/bustest"
	"postbus.example/internal/assert"
)

// TestProgram builds it, has it listen, and ends it with SIGTERM.
func TestProgram(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "postbus")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	assert.NoError(t, err, string(out))

	version, err := exec.CommandContext(t.Context(), program, "version").Output()
	assert.NoError(t, err)
	assert.Contains(t, string(version), "postbus ")
	assert.Equal(t, exitCode(exec.CommandContext(t.Context(), program, "nonsense").Run()), 64)

	s := bustest.Server(t)
	cmd := exec.CommandContext(t.Context(), program, "bridge", "--expose", "a.*", "--listen", "127.0.0.1:0")
	cmd.Env = append(cmd.Environ(), "POSTBUS_NATS="+s.URL())
	log, err := cmd.StderrPipe()
	assert.NoError(t, err)
	assert.NoError(t, cmd.Start())
	lines := bufio.NewScanner(log)
	reply, err := http.Get("http://" + listens(t, lines) + "/readyz")
	assert.NoError(t, err)
	assert.NoError(t, reply.Body.Close())
	assert.Equal(t, reply.StatusCode, http.StatusOK)
	assert.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
		t.Log(lines.Text())
	}
	assert.NoError(t, cmd.Wait(), "exit code 0 after SIGTERM")
}

// listens waits for the address that a bridge logs.
func listens(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	for lines.Scan() {
		var l struct{ Msg, Addr string }
		if json.NewDecoder(strings.NewReader(lines.Text())).Decode(&l) == nil && l.Msg == "the HTTP bridge listens" {
			return l.Addr
		}
	}
	t.Fatal(io.ErrUnexpectedEOF, lines.Err())
	return ""
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec's own
		return exit.ExitCode()
	}
	return 0
}
