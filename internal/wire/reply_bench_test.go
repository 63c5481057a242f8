package wire_test

import (
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func BenchmarkReadReply(b *testing.B) {
	failed := wire.Headers{}
	body, err := wire.WriteError(failed, endpoint.NotFound.New("no such user"))
	assert.NoError(b, err)
	for name, h := range map[string]wire.Headers{"plain": nil, "error": failed} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var app endpoint.Header
				wire.ReadReply(h, body, &app)
			}
		})
	}
}
