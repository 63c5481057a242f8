//go:build !race

package jsonv2_test

import (
	"strings"
	"testing"

	"postbus.example/codec/jsonv2"
	"postbus.example/internal/assert"
)

// TestDecodeAllocatesNothing holds for messages without strings, slices, maps and pointers, whose memory is the
// message's own. That codec.JSON can't do this for data of such a length shows that it was not asked. The race
// detector makes sync.Pool drop values at random, which costs allocations.
func TestDecodeAllocatesNothing(t *testing.T) {
	var m struct {
		A int     `json:"a"`
		B float64 `json:"b"`
	}
	data := []byte(`{"a":1,` + strings.Repeat(" ", 2000) + `"b":2.5}`)
	assert.Equal(t, testing.AllocsPerRun(200, func() {
		if err := jsonv2.JSON.Decode(data, &m); err != nil {
			t.Fatal(err)
		}
	}), 0.0, "allocations")
	assert.Equal(t, m.A, 1)
}
