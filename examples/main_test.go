// Package examples_test runs the example programs as a user would: as processes of their own.
package examples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postbus.example/embedded"
	"postbus.example/internal/assert"
)

// bin is where the programs are built, by the first test that runs one.
var bin string

var build = sync.OnceValue(func() error {
	for _, program := range []string{"addsvc/server", "addsvc/gateway", "addsvc/cli", "stringsvc/uppercase", "stringsvc/count", "inventory", "tail", "chat", "upload", "gateway/bridge", "gateway/catalog", "gateway/orders"} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./"+program).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
	}
	return nil
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "examples")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// program is a running example and what it wrote.
type program struct {
	cmd  *exec.Cmd
	done chan error

	mu    sync.Mutex
	lines []line
	out   bytes.Buffer
}

// line is one of the log, which is JSON where there is no terminal.
type line map[string]any

// run starts a program; the test's end kills it if nobody else did.
func run(t *testing.T, name string, args ...string) *program {
	t.Helper()
	assert.NoError(t, build())
	p := &program{cmd: exec.Command(filepath.Join(bin, name), args...), done: make(chan error, 1)}
	log, err := p.cmd.StderrPipe()
	assert.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	assert.NoError(t, err)
	assert.NoError(t, p.cmd.Start())
	var read sync.WaitGroup
	read.Go(func() { p.read(log) })
	read.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.out.WriteString(s.Text() + "\n")
			p.mu.Unlock()
		}
	})
	go func() {
		read.Wait()
		p.done <- p.cmd.Wait()
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

func (p *program) read(log io.Reader) {
	for s := bufio.NewScanner(log); s.Scan(); {
		var l line
		if json.Unmarshal(s.Bytes(), &l) != nil {
			l = line{"msg": s.Text()}
		}
		p.mu.Lock()
		p.lines = append(p.lines, l)
		p.mu.Unlock()
	}
}

// log returns the lines with a message.
func (p *program) log(msg string) []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []line
	for _, l := range p.lines {
		if l["msg"] == msg {
			found = append(found, l)
		}
	}
	return found
}

func (p *program) stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// url waits until the program serves HTTP, and so everything else.
func (p *program) url(t *testing.T) string {
	t.Helper()
	var l []line
	assert.Eventually(t, func() bool { l = p.log("the HTTP bridge listens"); return len(l) > 0 }, p.cmd.Path, "listens")
	addr, _ := l[0]["addr"].(string)
	return "http://" + addr
}

// wait returns how the program ended.
func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal(p.cmd.Path, "still runs after 20 seconds")
		return nil
	}
}

// terminate sends SIGTERM and wants exit code 0.
func (p *program) terminate(t *testing.T) {
	t.Helper()
	assert.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, p.wait(t), p.cmd.Path, "after SIGTERM")
}

func broker(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start()
	assert.NoError(t, err)
	t.Cleanup(s.Shutdown)
	return s
}

func post(t *testing.T, url, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	assert.NoError(t, err)
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	assert.NoError(t, err)
	return r, string(text)
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	assert.NoError(t, err)
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	assert.NoError(t, err)
	assert.Equal(t, r.StatusCode, http.StatusOK)
	return string(text)
}

// code counts what is neither blank nor comment, nor a test.
func code(t *testing.T, dirs ...string) int {
	t.Helper()
	n := 0
	for _, dir := range dirs {
		files, err := filepath.Glob(dir + "/*.go")
		assert.NoError(t, err)
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			assert.NoError(t, err)
			for l := range strings.Lines(string(text)) {
				if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "//") {
					n++
				}
			}
		}
	}
	return n
}
