package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"postbus.example/cmd/postbus/internal/cli"
	"postbus.example/internal/assert"
)

// filesOf makes a folder with what the manual's sample names.
func filesOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	p := cli.NewPKI(t)
	for source, name := range map[string]string{p.Cert: "tls.pem", p.Key: "tls.key", p.CA: "nats-ca.pem"} {
		text, err := os.ReadFile(source)
		assert.NoError(t, err)
		assert.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	assert.NoError(t, os.WriteFile(filepath.Join(dir, "bridge.creds"), nil, 0o600))
	_, keys := newKey(t, "ann", "math:read")
	line, err := os.ReadFile(keys)
	assert.NoError(t, err)
	assert.NoError(t, os.WriteFile(filepath.Join(dir, "keys"), line, 0o600))
	return dir
}
