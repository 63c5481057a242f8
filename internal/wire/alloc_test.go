package wire_test

import (
	"testing"
	"time"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// TestAllocs promises that metadata in the reply subject costs no memory on either side.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are measured without the race detector")
	}
	meta := wire.Request{HasTimeout: true, Timeout: 2 * time.Second, HasSent: true, Sent: 1767225600123, MediaType: "application/cbor", Ack: true, Tell: true}
	token := tokenOf(&meta)
	traced := meta
	traced.Trace = trace
	var h wire.Headers
	var app endpoint.Header
	for name, f := range map[string]func(){
		"write": func() {
			var room [192]byte
			b := append(room[:0], inbox...)
			b = wire.AppendID(b, 7, 0x0123456789abcdef)
			if b = wire.AppendToken(b, &meta); len(b) < len(token) {
				t.Fatal(string(b))
			}
		},
		"write a trace": func() {
			var room [192]byte
			if b := wire.AppendToken(room[:0], &traced); len(b) < 34 {
				t.Fatal(string(b))
			}
		},
		"read": func() {
			var r wire.Request
			if !ownToken(token, &r) || wire.ReadRequest(h, &r, &app) != nil || r.Timeout != meta.Timeout {
				t.Fatal(r)
			}
		},
		"read what is foreign": func() {
			var r wire.Request
			if ownToken("Zk4pN8sD", &r) {
				t.Fatal(r)
			}
		},
		"find the call": func() {
			if _, _, ok := wire.ParseID(token); !ok {
				t.Fatal(token)
			}
		},
		"read a plain reply": func() {
			if wire.ReadReply(h, nil, &app).Err != nil || wire.IsPubAck(sum) {
				t.Fatal("not a success")
			}
		},
		"read headers": func() {
			var r wire.Request
			if wire.ReadRequest(understood, &r, &app) != nil || r.Attempt != 2 {
				t.Fatal(r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, testing.AllocsPerRun(200, f), 0) })
	}
}

var sum = []byte(`{"sum":1234567890123456}`)

var understood = wire.Headers{"Rpc-Attempt": {"2"}, "Rpc-Timeout": {"1S"}, "Content-Type": {"application/proto"}}

func BenchmarkToken(b *testing.B) {
	meta := wire.Request{HasTimeout: true, Timeout: 2 * time.Second, HasSent: true, Sent: 1767225600123, MediaType: "application/proto"}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var room [192]byte
			wire.AppendToken(wire.AppendID(room[:0], 7, 0x0123456789abcdef), &meta)
		}
	})
	token := tokenOf(&meta)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		var r wire.Request
		for b.Loop() {
			wire.ParseToken(token, &r)
		}
	})
}
