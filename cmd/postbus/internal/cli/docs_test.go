package cli_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// manual is the page that users read.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash("../../../../docs/postbus.md"))
	assert.NoError(t, err)
	return string(text)
}

// TestManual_file has the sample of a file judged, with the files that it names.
func TestManual_file(t *testing.T) {
	t.Parallel()
	_, sample, found := strings.Cut(manual(t), "```yaml\n")
	assert.True(t, found, "there is a sample")
	sample, _, _ = strings.Cut(sample, "```")
	sample = strings.ReplaceAll(sample, "/etc/postbus", filesOf(t))
	r := run(t, []string{"bridge", "--check", "--config", settings(t, sample)})
	assert.Equal(t, r, result{0, "the settings are in order\n", ""})
	r = run(t, []string{"bridge", "--check", "--config", settings(t, strings.Replace(sample, "expose:", "exposed:", 1))})
	assert.Equal(t, r.code, 64)
	assert.Contains(t, r.err, "exposed: unknown: no flag bridge --exposed")
}

// TestManual_exitCodes holds the table against the codes.
func TestManual_exitCodes(t *testing.T) {
	t.Parallel()
	text := manual(t)
	for c := endpoint.Canceled; c <= endpoint.Unauthenticated; c++ {
		row := "| " + strconv.Itoa(100+int(c)) + " | `" + c.String() + "`"
		assert.True(t, strings.Contains(text, row), row)
	}
	for _, code := range []string{"0", "1", "64", "74", "130"} {
		assert.True(t, strings.Contains(text, "| "+code+" | "), code)
	}
}

// TestManual_flags wants every flag of the bridge in the manual's tables, and nothing that is none.
func TestManual_flags(t *testing.T) {
	t.Parallel()
	text := manual(t)
	help := run(t, []string{"bridge", "--help"}).out
	for line := range strings.Lines(help) {
		_, flag, ok := strings.Cut(line, "--")
		if name, _, _ := strings.Cut(strings.Fields(flag + " -")[0], "="); ok && strings.HasPrefix(strings.TrimSpace(line), "--") {
			assert.True(t, strings.Contains(text, "`"+name+"`"), name)
		}
	}
}
