package wire_test

import (
	"fmt"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

// What a Reader has read before changes nothing: a token says what it says by itself, in a subject and in a frame.
func TestReader(t *testing.T) {
	tokens := []string{
		id + "~d2000m~smjuohs3f~a1", id + "~d2000m~smjuohs3f~a1~i1", "abcdefghijklm~d2000m~smjuohs3f~a1", id + "~d2000m~smjuohs3g~a1",
		id + "~mp", id + "~mz", id + "~d", id + "~a1~a1", id + "~i1~dsoon", id + "~x", id + "~a1~", id + "~A1", tokenOf(&wire.Request{Trace: trace, MaxReply: 64 << 20, TakesS2: true}),
		"short~a1", "Zk4pN8sD", "", "no id~a1",
	}
	type said struct {
		r   wire.Request
		err string
	}
	by := func(read func(r *wire.Request) *endpoint.Error) said {
		s := said{r: wire.Request{Stream: "left over"}}
		if err := read(&s.r); err != nil {
			s.err = err.Error()
		}
		return s
	}
	for _, first := range tokens {
		for _, second := range tokens {
			var d wire.Reader
			for i, token := range []string{first, second, second, first} {
				want := by(func(r *wire.Request) *endpoint.Error { return wire.ParseToken(token, r) })
				got := by(func(r *wire.Request) *endpoint.Error { return d.Token(token, r) })
				assert.Equal(t, got, want, fmt.Sprintf("%q, then %q: %d", first, second, i))
				if !isCall(token) {
					continue
				}
				frame := wire.AppendEntry(nil, token, []byte("body"))
				entries, err := wire.ReadEntries(nil, frame)
				assert.True(t, err == nil && entries[0].IsCall(frame), token)
				got = by(func(r *wire.Request) *endpoint.Error { return d.Call(entries[0], frame, r) })
				assert.Equal(t, got, want, fmt.Sprintf("%q, then %q: %d, in a frame", first, second, i))
			}
		}
	}
}
