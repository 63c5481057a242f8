package traceparent_test

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"postbus.example/internal/assert"
	"postbus.example/internal/traceparent"
)

const sample = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// The reference is the standard library's.
func written(p traceparent.Parts) string {
	return "00-" + hex.EncodeToString(p[:16]) + "-" + hex.EncodeToString(p[16:24]) + "-" + hex.EncodeToString(p[24:])
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		var p traceparent.Parts
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		text := traceparent.Write(&p)
		assert.Equal(t, text, written(p))
		got, ok := traceparent.Read(text)
		assert.True(t, ok, text)
		assert.Equal(t, got, p)
	}
}

// At each place each byte is tried: it is read where it is what has to be there, and nowhere else.
func TestNothingElseIsRead(t *testing.T) {
	for at := range sample {
		for c := range 256 {
			text := sample[:at] + string([]byte{byte(c)}) + sample[at+1:]
			_, ok := traceparent.Read(text)
			want := byte(c) == sample[at]
			if at >= 3 && sample[at] != '-' {
				want = strings.IndexByte("0123456789abcdef", byte(c)) >= 0
			}
			assert.Equal(t, ok, want, text)
		}
	}
	for _, text := range []string{"", "00-", sample[:len(sample)-1], sample + "0", sample + "-00", strings.ToUpper(sample), strings.Repeat("0", traceparent.Length)} {
		_, ok := traceparent.Read(text)
		assert.True(t, !ok, text)
	}
}

func TestAllocs(t *testing.T) {
	p, _ := traceparent.Read(sample)
	assert.Equal(t, testing.AllocsPerRun(100, func() { _, _ = traceparent.Read(sample) }), 0)
	assert.Equal(t, testing.AllocsPerRun(100, func() { traceparent.Write(&p) }), 1, "the text")
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		traceparent.Read(sample)
	}
}

func BenchmarkWrite(b *testing.B) {
	p, _ := traceparent.Read(sample)
	for b.Loop() {
		traceparent.Write(&p)
	}
}
