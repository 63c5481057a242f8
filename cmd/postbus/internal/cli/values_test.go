package cli_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postbus.example/cmd/postbus/internal/cli"
	"postbus.example/internal/assert"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, sound := range map[string]bool{
		"1": true, "4096": true, "64KiB": true, "1.5MiB": true, "2GB": true, "1 MiB": true, "1k": true, "0": true,
		"": false, "MiB": false, "1XB": false, "-1KiB": false, "1e400": false, "9999999999GiB": false, "NaN": false, "Inf": false, "1MiB2": false,
	} {
		r := run(t, []string{"bridge", "--check", "--expose", "a.b", "--max-body=" + text})
		assert.Equal(t, r.code == 0, sound, text, r.err)
	}
}

// FuzzFile wants any file to be understood or refused, with its name, and nothing else to happen.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"nats: x\nbridge:\n  expose: [a.b]\n  route: {GET /a: a.b}\n", "- a", "a: &a [*a]", "<<: {nats: x}", "? {a: b}\n: c", "bridge: &b {expose: a.b}\nls: *b",
		"nats: !!binary aGk=", "%YAML 9.9\n---\n", "\x00", "bridge: {max-body: 1e9, call-timeout: 5, access-log: [true]}", "a: b\n---\nc: d",
	} {
		f.Add(text)
	}
	name := filepath.Join(f.TempDir(), "postbus.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		assert.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		var stderr output
		code := cli.Run(context.Background(), []string{"bridge", "--check", "--expose", "a.b", "--config", name}, strings.NewReader(""), io.Discard, &stderr, nil)
		assert.True(t, code == 0 || code == 64, stderr.String())
	})
}
