package wire_test

import (
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func TestSizes(t *testing.T) {
	for v, want := range map[string]uint64{
		"1": 1, "4611686018427387904": 1 << 62, "0": 0, "": 0, "-1": 0, "+1": 0, "1e3": 0, "4611686018427387905": 0, "18446744073709551616": 0,
	} {
		var r wire.Request
		var app endpoint.Header
		err := wire.ReadRequest(wire.Headers{wire.SizeHeader: {v}}, &r, &app)
		assert.Equal(t, r.Size, want, v)
		assert.Equal(t, err == nil, want > 0, v)
		f := wire.ReadFrame(wire.Headers{wire.Open: {"x"}, wire.SizeHeader: {v}}, nil, &app, &app)
		assert.Equal(t, f.Kind == wire.OpenFrame, want > 0, v)
		assert.Equal(t, f.Size, want, v)
	}
}

func TestMaxReply(t *testing.T) {
	for v, want := range map[string]wire.Request{
		"7": {MaxReply: 7}, "7;s2": {MaxReply: 7, TakesS2: true}, "7; zstd ; s2": {MaxReply: 7, TakesS2: true}, "7;zstd": {MaxReply: 7},
		"0": {}, "s2": {}, ";s2": {}, "-7": {},
	} {
		var r wire.Request
		var app endpoint.Header
		err := wire.ReadRequest(wire.Headers{"rpc-max-reply": {v}}, &r, &app)
		assert.Equal(t, err == nil, want.MaxReply > 0, v)
		assert.Equal(t, r.MaxReply, want.MaxReply, v)
		assert.Equal(t, r.TakesS2, want.TakesS2, v)
	}
	for token, want := range map[string]wire.Request{
		"abcdefghijkl~r7":  {Own: true, MaxReply: 7},
		"abcdefghijkl~zz":  {Own: true, MaxReply: 35, TakesS2: true},
		"abcdefghijkl~z0":  {Own: true},
		"abcdefghijkl~r":   {Own: true},
		"abcdefghijkl~r~i": {Own: true, Tell: true},
	} {
		var r wire.Request
		err := wire.ParseToken(token, &r)
		assert.Equal(t, err == nil, want.MaxReply > 0, token)
		assert.Equal(t, r, want, token)
	}
}

// The content encoding belongs to the application unless something is announced.
func TestContentEncoding(t *testing.T) {
	var r wire.Request
	var app endpoint.Header
	assert.True(t, wire.ReadRequest(wire.Headers{"content-encoding": {"br"}}, &r, &app) == nil)
	assert.Equal(t, app.Get("Content-Encoding")+r.Encoding, "br")
	r, app = wire.Request{}, endpoint.Header{}
	assert.True(t, wire.ReadRequest(wire.Headers{"content-encoding": {"s2"}, wire.SizeHeader: {"9"}, "X-A": {"b"}}, &r, &app) == nil)
	assert.Equal(t, r.Encoding, "s2")
	assert.Equal(t, app.Len(), 1)

	h := wire.Headers{"X-A": {"b"}, wire.ContentType: {"text/csv"}}
	wire.WriteAnnouncement(h, "x", 9, "s2")
	assert.True(t, wire.Announces(h), "announced")
	app = endpoint.Header{}
	f := wire.ReadFrame(h, nil, &app, &app)
	assert.Equal(t, f, wire.Frame{Kind: wire.OpenFrame, Instance: "x", Size: 9, Encoding: "s2", MediaType: "text/csv"})
	assert.Equal(t, app.Len(), 1)
	wire.Arrived(h)
	assert.Equal(t, h, wire.Headers{"X-A": {"b"}, wire.ContentType: {"text/csv"}})
}

func TestChunkSize(t *testing.T) {
	for most, want := range map[int64]int{1 << 20: 128 << 10, 64 << 20: 128 << 10, 64 << 10: 32 << 10, 1000: 500, 1: 1, 0: 1} {
		assert.Equal(t, wire.ChunkSize(most), want)
	}
}
