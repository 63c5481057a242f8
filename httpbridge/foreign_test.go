package httpbridge_test

import (
	"testing"

	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

func TestWithProtocol_faults(t *testing.T) {
	b := httpbridge.New(newMux(t), httpbridge.WithProtocol(nil),
		httpbridge.WithProtocol(func(httpbridge.Limits) httpbridge.Protocol { return nil }))
	assert.Contains(t, b.Err().Error(), "WithProtocol: the function is nil", "WithProtocol: the function returned nil")
}
