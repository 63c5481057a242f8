package interop_test

import (
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestCurl(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("skipped: curl is not installed")
	}
	url := broker(t)
	serve(t, connect(t, url), "svc.add", endpoint.New(add))
	bridge := httptest.NewServer(httpbridge.New(connect(t, url), httpbridge.Expose("svc.add", "svc.nobody")))
	t.Cleanup(bridge.Close)
	post := func(path, body string) (reply, status string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--write-out", "\n%{http_code}",
			"-H", "Content-Type: application/json", "-d", body, bridge.URL+path).Output()
		assert.NoError(t, err)
		reply, status, _ = strings.Cut(string(out), "\n")
		return reply, status
	}

	reply, status := post("/svc/add", `{"a":1,"b":2}`)
	assert.Equal(t, []string{status, reply}, []string{"200", `{"sum":3}`})
	reply, status = post("/svc/add", `{"a":1,"b":13}`)
	assert.Equal(t, []string{status, reply}, []string{"404", `{"code":"not_found","message":"there is no 13"}`})
	_, status = post("/svc/nobody", `{}`)
	assert.Equal(t, status, "503")
	_, status = post("/svc/hidden", `{}`)
	assert.Equal(t, status, "404")
}
