package stream_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postbus.example/internal/assert"
	"postbus.example/internal/stream"
	"postbus.example/internal/wire"
)

func TestAssembly(t *testing.T) {
	a := stream.NewAssembly(5)
	for _, part := range []string{"ab", "c", "de"} {
		assert.True(t, a.Whole() == nil, "whole too soon")
		room, err := a.Room(len(part))
		assert.NoError(t, err)
		copy(room, part)
	}
	assert.Equal(t, string(a.Whole()), "abcde")
	_, err := a.Room(1)
	assert.ErrorIs(t, err, stream.ErrExcess)
	_, err = a.Room(0)
	assert.ErrorIs(t, err, stream.ErrEmpty)
	var none stream.Assembly
	_, err = none.Room(1)
	assert.ErrorIs(t, err, stream.ErrExcess)
}

// What is promised costs nothing: memory is taken for what came.
func TestAssemblyIsThrifty(t *testing.T) {
	var room []byte
	took := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for range b.N {
			a := stream.NewAssembly(1 << 30)
			room, _ = a.Room(1000)
		}
	})
	assert.Equal(t, len(room), 1000)
	assert.True(t, took.AllocedBytesPerOp() <= 4*1000+256<<10, took.MemString())
}

// chunk is one under way.
type chunk struct {
	seq  uint64
	body []byte
}

// TestModelOfAssembly sends a message in chunks over a network that does anything: what the receiver calls whole is what was sent, or
// somebody forged as much of it as was announced; over a network that only delays it becomes whole; and its memory is bounded by
// what came.
func TestModelOfAssembly(t *testing.T) {
	checks := "2000"
	if os.Getenv("POSTBUS_FULL") == "1" {
		checks = "100000"
	}
	assert.NoError(t, flag.Set("rapid.checks", checks))
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "message")
		w := wire.Grant{Messages: rapid.Uint64Range(1, 6).Draw(t, "messages"), Bytes: rapid.Uint64Range(1, 50).Draw(t, "bytes")}
		hostile := rapid.Bool().Draw(t, "hostile")
		s, r, a := stream.NewSender(w), stream.NewReceiver(w), stream.NewAssembly(len(sent))
		rest, got, hurt := sent, 0, false
		var way []chunk
		var queue [][]byte
		var fault error
		for fault == nil && a.Whole() == nil {
			most := 3
			if hostile {
				most = 6
			}
			which := func() int { return rapid.IntRange(0, len(way)-1).Draw(t, "which") }
			step := rapid.IntRange(0, most).Draw(t, "step")
			if hurt && len(way)+len(queue) == 0 && (len(rest) == 0 || !s.Ready()) {
				return // what was lost does not come: silence ends it
			}
			switch {
			case step == 0 && len(rest) > 0 && s.Ready():
				n := rapid.IntRange(1, len(rest)).Draw(t, "n")
				way = append(way, chunk{s.Next(), rest[:n]})
				s.Sent(n)
				rest = rest[n:]
			case step == 1 && len(way) > 0:
				c := way[0]
				way = way[1:]
				if fault = r.Item(c.seq, len(c.body)); fault == nil {
					queue = append(queue, c.body)
				}
			case step == 2 && len(queue) > 0:
				c := queue[0]
				queue = queue[1:]
				var room []byte
				if room, fault = a.Room(len(c)); fault != nil {
					break
				}
				got += copy(room, c)
				if r.Use(len(c)) && s.Grant(r.TopUp(time.Now())) != nil {
					t.Fatal("the receiver grants too much")
				}
			case step == 3: // what was granted, once more
				if s.Grant(r.Granted()) != nil {
					t.Fatal("the receiver grants too much")
				}
			case step == 4 && len(way) > 0: // lost
				i := which()
				way, hurt = slices.Delete(way, i, i+1), true
			case step == 5 && len(way) > 0: // twice
				way, hurt = append(way, way[which()]), true
			case step == 6: // forged
				body := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "forged")
				way, hurt = append(way, chunk{rapid.Uint64Range(0, 9).Draw(t, "seq"), body}), true
			}
		}
		switch whole := a.Whole(); {
		case fault != nil && !hurt:
			t.Fatalf("%v, and nobody is at fault", fault)
		case fault == nil && len(whole) != len(sent), fault == nil && got != len(sent):
			t.Fatalf("%d of %d bytes are whole", len(whole), len(sent))
		case fault == nil && !hurt && !bytes.Equal(whole, sent):
			t.Fatal("another message")
		case fault != nil && errors.Is(fault, stream.ErrExcess) && !hurt:
			t.Fatal("more than was sent")
		}
	})
}
