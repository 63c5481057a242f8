package wire_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postbus.example/internal/assert"
)

// TestDocsQuoteGoldenFiles keeps docs/protocol.md to what is really written: each golden file stands there, whole, in a
// fence of its own.
func TestDocsQuoteGoldenFiles(t *testing.T) {
	doc, err := os.ReadFile(filepath.FromSlash("../../docs/protocol.md"))
	assert.NoError(t, err)
	files, err := filepath.Glob("testdata/*.golden")
	assert.NoError(t, err)
	assert.True(t, len(files) > 0, "golden files")
	for _, file := range files {
		data, err := os.ReadFile(file)
		assert.NoError(t, err)
		if !strings.Contains(string(doc), "\n```\n"+string(data)+"```\n") {
			t.Errorf("docs/protocol.md does not quote %s as it is now:\n%s", file, data)
		}
	}
}

// TestDocsNameEveryHeader asks for each header of the protocol in the running text.
func TestDocsNameEveryHeader(t *testing.T) {
	doc, err := os.ReadFile(filepath.FromSlash("../../docs/protocol.md"))
	assert.NoError(t, err)
	for _, name := range headerConstants(t) {
		assert.True(t, strings.Contains(string(doc), "`"+name+"`") || strings.Contains(string(doc), "`"+name+": "), name)
	}
}
