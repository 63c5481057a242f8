package uplink

import (
	"testing"
	"time"

	"postbus.example/internal/assert"
)

func TestReconnectDelaysAreSpread(t *testing.T) {
	for attempts := range 40 {
		limit := 5 * time.Second
		if attempts <= 1 {
			limit = 2 * time.Second
		}
		longest := time.Duration(0)
		for range 300 {
			d := reconnectDelay(attempts, false)
			assert.True(t, d >= 0 && d < limit, d.String())
			longest = max(longest, d)
		}
		assert.True(t, longest > limit/2, "the whole range is used")
	}
}
