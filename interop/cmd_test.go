package interop_test

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postbus.example/internal/assert"
)

// TestCmd_offersJavaScript has curl call a service that was written in JavaScript, and reads its description, by way of the
// command alone.
func TestCmd_offersJavaScript(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("skipped: curl is not installed")
	}
	program := buildCmd(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := broker(t)
			_, id := startService(t, kind, url)
			front := startCmd(t, program, url, "--expose", "js.*", "--expose", "mix.*", "--route", "GET /v1/sums/{a}/{b}=js.add")
			ask := func(args ...string) string {
				t.Helper()
				out, err := exec.CommandContext(t.Context(), curl, append([]string{"--silent", "--show-error", "--noproxy", "*", "--max-time", "10",
					"--write-out", " %{http_code}", "-H", "Content-Type: application/json"}, args...)...).Output()
				assert.NoError(t, err)
				return string(out)
			}
			assert.Equal(t, ask("-d", `{"a":1,"b":2}`, front+"/js/add"), `{"sum":3} 200`)
			assert.Equal(t, ask("-d", `{"code":404,"text":"said in JavaScript"}`, front+"/js/fail"), `{"code":"not_found","message":"said in JavaScript"} 404`)
			assert.Contains(t, ask("-d", `{}`, front+"/js/nobody"), `"code":"unimplemented"`, " 404")
			assert.Equal(t, ask("-d", `{}`, front+"/mix/who"), `{"who":"js"} 200`)
			assert.Equal(t, ask(front+"/v1/sums/1/2"), `{"sum":3} 200`, "the published schema says that they are numbers")
			described(t, func() string { return ask(front + "/openapi.json") })

			out, err := exec.CommandContext(t.Context(), program, "info", "JsSvc", "--nats", url).Output()
			assert.NoError(t, err)
			assert.Contains(t, string(out), "JsSvc\n  instance "+id+"  1.2.3", "lang=js", "js.add  unary", "adds two numbers")
		})
	}
}

// described wants what the service says of itself in the document: schemas and text of js.add, and of the others that they exist.
func described(t *testing.T, read func() string) {
	t.Helper()
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Summary, Description string
			RequestBody          json.RawMessage
		}
	}
	assert.Eventually(t, func() bool {
		text, status, _ := strings.Cut(read(), "} 200")
		return status == "" && json.Unmarshal([]byte(text+"}"), &doc) == nil && len(doc.Paths) == 5
	}, "all is described")
	assert.Equal(t, doc.OpenAPI, "3.1.1")
	add := doc.Paths["/js/add"]["post"]
	assert.Contains(t, add.Summary+add.Description, "adds two numbers")
	assert.True(t, len(add.RequestBody) > 0 && doc.Paths["/v1/sums/{a}/{b}"]["get"].Summary+doc.Paths["/v1/sums/{a}/{b}"]["get"].Description != "")
	for _, path := range []string{"/js/fail", "/js/throw", "/mix/who"} {
		_, there := doc.Paths[path]["post"]
		assert.True(t, there, path)
	}
}

func buildCmd(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "postbus")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/postbus")
	build.Dir = ".." // with the versions of the module that it belongs to
	out, err := build.CombinedOutput()
	assert.NoError(t, err, string(out))
	return program
}

// startCmd runs postbus bridge until the test ends, and wants exit code 0 then.
func startCmd(t *testing.T, program, nats string, args ...string) (url string) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"bridge", "--nats", nats, "--listen", "127.0.0.1:0"}, args...)...)
	log, err := cmd.StderrPipe()
	assert.NoError(t, err)
	assert.NoError(t, cmd.Start())
	lines := bufio.NewScanner(log)
	for url == "" && lines.Scan() {
		var l struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "the HTTP bridge listens" {
			url = "http://" + l.Addr
		}
	}
	t.Cleanup(func() {
		assert.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		for lines.Scan() {
			if t.Failed() {
				t.Log(lines.Text())
			}
		}
		assert.NoError(t, cmd.Wait(), "after SIGTERM")
	})
	assert.True(t, url != "", "the bridge listens")
	return url
}
