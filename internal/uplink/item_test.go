package uplink

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"postbus.example/internal/assert"
)

// What is written of an item is what is read, and never more than it was said to be.
func TestItems(t *testing.T) {
	for _, seq := range []uint64{0, 1, 9, 10, 1 << 40, 1e18 - 1} {
		line, header, ok := bytes.Cut(AppendItem(nil, "in.0a", seq, 5), []byte("\r\n"))
		assert.True(t, ok)
		assert.Equal(t, string(line), fmt.Sprintf("HPUB in.0a %d %d", len(header), len(header)+5))
		got, ok := itemNumber(header)
		assert.True(t, ok)
		assert.Equal(t, got, seq)
	}
	_, header, _ := bytes.Cut(AppendItem(nil, "x", math.MaxUint64, 0), []byte("\r\n"))
	assert.Equal(t, len(header), MaxItemHead)
	_, ok := itemNumber(header)
	assert.True(t, !ok, "it is left to nats.go")
	for _, other := range []string{"", "NATS/1.0\r\n\r\n", numbered(1)[1:], "NATS/1.0\r\nRpc-Seq: \r\n\r\n", "NATS/1.0\r\nRpc-Seq: 1\r\nX: 1\r\n\r\n"} {
		_, ok := itemNumber([]byte(other))
		assert.True(t, !ok, other)
	}
}
