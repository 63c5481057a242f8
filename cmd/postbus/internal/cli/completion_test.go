package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
)

// complete gives the candidates for the last of the words, without what they mean.
func complete(t *testing.T, env string, words ...string) []string {
	t.Helper()
	r := run(t, append([]string{"__complete", "--"}, words...), env)
	assert.Equal(t, []any{r.code, r.err}, []any{0, ""})
	var found []string
	for line := range strings.Lines(r.out) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		found = append(found, word)
	}
	return found
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	s := broker(t)
	b := serve(t, s, math())
	env := "POSTBUS_NATS=" + s.URL()
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{""}, []string{"bridge", "ls", "info", "call", "gather", "key", "completion", "version"}},
		{[]string{"g"}, []string{"gather"}},
		{[]string{"--log-l"}, []string{"--log-level"}},
		{[]string{"call", "--str"}, []string{"--stream"}},
		{[]string{"ls", "--log-level", ""}, []string{"debug", "info", "warn", "error"}},
		{[]string{"ls", "--log-level=w"}, []string{"warn"}},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}},
		{[]string{"call", "math.t"}, []string{"math.total"}},
		{[]string{"call", "-v", "--timeout", "5s", "math.a"}, []string{"math.add"}},
		{[]string{"call", "--instance", ""}, []string{b.ID()}},
		{[]string{"info", "m"}, []string{"math"}},
		{[]string{"bridge", "--expose", "math.d"}, []string{"math.double"}},
		{[]string{"call", "math.add", ""}, nil},
		{[]string{"nonsense", "x"}, nil},
	} {
		assert.Equal(t, complete(t, env, c.words...), c.want, strings.Join(c.words, " "))
	}
	assert.Equal(t, complete(t, "POSTBUS_NATS=nats://127.0.0.1:1", "call", "m"), nil, "without a server nothing is known")
	assert.Equal(t, run(t, []string{"completion", "csh"}).code, 64)
}

// TestCompletion_hostile offers no word that a shell would do something with: peers name their subjects as they like.
func TestCompletion_hostile(t *testing.T) {
	t.Parallel()
	s := broker(t)
	e := math()["math.add"]
	serve(t, s, map[string]*endpoint.Endpoint{
		"math.add": e, "math.A-1_b": e, "math.x;id": e, "math.$(id)": e, "math.`id`": e, "math.x|sh": e, "math.${IFS}": e, "math.&": e, "math.'": e, "math.é": e,
	})
	assert.Equal(t, complete(t, "POSTBUS_NATS="+s.URL(), "call", "math."), []string{"math.A-1_b", "math.add"})
	assert.Equal(t, complete(t, "POSTBUS_NATS="+s.URL(), "call", "math.x;"), nil)
}

// TestCompletion_scripts has the shells that are here read what is written for them, and bash use it.
func TestCompletion_scripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := run(t, []string{"completion", shell})
		assert.Equal(t, []any{r.code, r.err}, []any{0, ""})
		program, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), shell)
		assert.NoError(t, os.WriteFile(file, []byte(r.out), 0o600))
		out, err := exec.CommandContext(t.Context(), program, "-n", file).CombinedOutput()
		assert.NoError(t, err, string(out))
		if shell == "bash" {
			// In place of the program stands a function that tells what it was asked.
			out, err := exec.CommandContext(t.Context(), program, "-c", `postbus() { printf '%s\tmeans something\n' "$*"; }
source "$1"; COMP_WORDS=(postbus call math.a); COMP_CWORD=2; _postbus; printf '%s\n' "${COMPREPLY[@]}"`, "bash", file).CombinedOutput()
			assert.NoError(t, err, string(out))
			assert.Equal(t, string(out), "__complete -- call math.a\n")
		}
	}
}
