package cli_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestHelp holds the help of each command against its golden file.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "bridge", "ls", "info", "call", "gather", "key", "completion", "version"} {
		r := run(t, append(strings.Fields(command), "--help"), "POSTBUS_NATS_PASSWORD=hush") // which is not shown
		assert.Equal(t, []any{r.code, r.err}, []any{0, ""}, command)
		file := filepath.Join("testdata", strings.TrimSpace("help "+command)+".txt")
		file = strings.ReplaceAll(file, " ", "-")
		if *update {
			assert.NoError(t, os.WriteFile(file, []byte(r.out), 0o600))
		}
		want, err := os.ReadFile(file)
		assert.NoError(t, err)
		assert.Equal(t, r.out, string(want), file)
		for line := range strings.Lines(r.out) {
			assert.True(t, len([]rune(line)) <= 112, "fits a terminal", line)
		}
	}
}

// settings writes a file and gives its name.
func settings(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "postbus.yaml")
	assert.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// TestPrecedence asks for a server that is not there: the message tells which one.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := settings(t, "nats: nats://127.0.0.1:3\nls:\n  timeout: 1s\n")
	const env = "POSTBUS_NATS=nats://127.0.0.1:2"
	tried := func(args []string, env ...string) string {
		r := run(t, append([]string{"ls"}, args...), env...)
		assert.Equal(t, r.code, 114, r.err)
		assert.True(t, !strings.Contains(r.err, "hush"), "no password is told")
		_, port, _ := strings.Cut(r.err, "nats://127.0.0.1:")
		port, _, _ = strings.Cut(port, ":")
		return port
	}
	assert.Equal(t, tried([]string{"--nats", "nats://127.0.0.1:1", "--config", file}, env), "1", "the flag wins")
	assert.Equal(t, tried([]string{"--config", file}, env), "2", "over the environment")
	assert.Equal(t, tried([]string{"--config", file}), "3", "over the file")
	assert.Equal(t, tried(nil, "POSTBUS_CONFIG="+file), "3", "whose name may stand in the environment")
	assert.Equal(t, tried(nil, "POSTBUS_NATS=nats://me:hush@127.0.0.1:2"), "2", "without the password")
}

// TestFaults_atOnce gives a wrong value in each of the places, and wants all of them named.
func TestFaults_atOnce(t *testing.T) {
	t.Parallel()
	file := settings(t, "nats-tls-first: perhaps\ncall:\n  timeout: soon\n  tiemout: 5s\nbridge:\n  lisen: x\nls: yes\ncall: {}\nnats-user: [a, b]\n")
	r := run(t, []string{"call", "a..b", "--log-level", "loud", "--config", file, "-H", "none", "-H", "Nats-X:1", "--nats-creds", "/no/such", "--nats-token", "t", "--nats-cert", "c"},
		"POSTBUS_VERBOSE=perhaps", "POSTBUS_NATS_PASSWORD=hush", "POSTBUS_SERVICE_HOST=10.0.0.1")
	assert.Equal(t, []any{r.code, r.out}, []any{64, ""})
	for _, want := range []string{
		"--log-level: \"loud\" is none of debug, info, warn, error",
		file + ":1: nats-tls-first: ",
		file + ":3: timeout: ",
		file + ":4: tiemout: unknown: no flag call --tiemout",
		file + ":6: lisen: unknown: no flag bridge --lisen",
		file + ":7: ls: is a command, whose flags stand under it",
		file + ":8: call: given twice",
		file + ":9: nats-user: takes one value",
		"POSTBUS_VERBOSE: ",
		"<subject>: ",
		"--header: \"none\" is not NAME:VALUE",
		"--header: Nats-X belongs to the bus",
		"--nats-creds: open /no/such",
		"--nats-creds, --nats-nkey, --nats-user and --nats-token are ways to say who connects: give one",
		"--nats-password: needs --nats-user",
		"--nats-cert and --nats-key go together",
	} {
		assert.Contains(t, r.err, "postbus: "+want)
	}
	assert.Equal(t, strings.Count(r.err, "\n"), 16, r.err)
	assert.True(t, !strings.Contains(r.err, "hush"), "no secret is told")
}

func TestFaults_ofTheFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"- a\n":             ":1: the file is not a mapping",
		"nats: [\n":         "postbus.yaml: ",
		"nats:\n":           ":1: nats: has no value",
		"nats: [[a]]\n":     ":1: nats: its values are plain",
		"config: x\n":       ":1: config: unknown",
		"help: true\n":      ":1: help: unknown",
		"__complete: {}\n":  ":1: __complete: unknown",
		"log-level: high\n": ":1: log-level: \"high\" is none of",
	} {
		r := run(t, []string{"ls", "--config", settings(t, text)})
		assert.Equal(t, r.code, 64, text)
		assert.Contains(t, r.err, want)
	}
	r := run(t, []string{"version", "--config", "/no/such.yaml"})
	assert.Equal(t, r.code, 64)
	assert.Contains(t, r.err, "--config: open /no/such.yaml")
	assert.Equal(t, run(t, []string{"version", "--config", settings(t, "")}).code, 0, "an empty file says nothing")
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"unexpected argument cal, did you mean \"call\"?": {"cal"},
		"expected one of":      {},
		"unknown flag --lisen": {"bridge", "--lisen", "x"},
		`expected "<subject>`:  {"call"},
	} {
		r := run(t, args)
		assert.Equal(t, []any{r.code, r.out}, []any{64, ""})
		assert.Contains(t, r.err, want)
		assert.Contains(t, run(t, append(args, "--json")).err, `{"code":"usage","message":"`, `"exit":64}`)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	assert.Contains(t, run(t, []string{"version"}).out, "postbus ", " go1.")
	assert.Contains(t, run(t, []string{"version", "--json"}).out, `{"version":"`, `"platform":"`)
}
