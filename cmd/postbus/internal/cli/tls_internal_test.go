package cli

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"postbus.example/internal/assert"
)

// TestCertificate_renewed replaces the files of a certificate, by another one and by nonsense.
func TestCertificate_renewed(t *testing.T) {
	t.Parallel()
	one, two := NewPKI(t), NewPKI(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &certificate{cert: one.Cert, key: one.Key, log: slog.New(slog.NewTextHandler(&log, nil))}
		first, err := c.get(nil)
		assert.NoError(t, err)
		replace(t, two, one, time.Hour)
		same, err := c.get(nil)
		assert.NoError(t, err)
		assert.True(t, same == first, "it is not looked at each time")
		time.Sleep(certLook)
		second, err := c.get(nil)
		assert.NoError(t, err)
		assert.True(t, second != first, "it is the new one")

		assert.NoError(t, os.WriteFile(one.Key, []byte("nonsense"), 0o600))
		time.Sleep(certLook)
		still, err := c.get(nil)
		assert.NoError(t, err)
		assert.True(t, still == second, "the old one goes on")
		assert.Contains(t, log.String(), "the new certificate can't be read")
	})
	_, err := (&certificate{cert: filepath.Join(t.TempDir(), "none")}).get(nil)
	assert.True(t, err != nil, "without any there is none")
}

// replace writes one certificate's files over another's, changed at another time.
func replace(t *testing.T, from, to *PKI, later time.Duration) {
	t.Helper()
	for source, file := range map[string]string{from.Cert: to.Cert, from.Key: to.Key} {
		text, err := os.ReadFile(source)
		assert.NoError(t, err)
		assert.NoError(t, os.WriteFile(file, text, 0o600))
		at := time.Now().Add(later)
		assert.NoError(t, os.Chtimes(file, at, at))
	}
}
