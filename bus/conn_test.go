package bus

import (
	"testing"

	"postbus.example/internal/assert"
)

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
