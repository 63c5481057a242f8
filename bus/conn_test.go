package bus

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

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"nats://h:4222":                       "nats://h:4222",
		"nats://u:p@h:4222":                   "nats://h:4222",
		"u:p@h":                               "h",
		"nats://u:p@ss@h,tls://t@i, ws://x@j": "nats://h,tls://i, ws://j",
	} {
		assert.Equal(t, redact(in), want)
	}
}
