package wire_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/internal/assert"
	"postbus.example/internal/wire"
)

func TestEntries(t *testing.T) {
	names := []string{"0007063UfDVRKBz~d2S", "x", strings.Repeat("n", wire.MaxToken)}
	bodies := [][]byte{[]byte("one"), nil, bytes.Repeat([]byte("b"), wire.MaxEntryBody)}
	var frame []byte
	for i := range names {
		before := len(frame)
		frame = wire.AppendEntry(frame, names[i], bodies[i])
		assert.True(t, len(frame)-before <= wire.EntrySize(len(names[i]), len(bodies[i])), "the size")
	}
	got, err := wire.ReadEntries(nil, frame)
	assert.True(t, err == nil && len(got) == len(names), "all of them")
	for i, e := range got {
		assert.Equal(t, wire.Name(e, string(frame)), names[i])
		assert.Equal(t, string(e.Body(frame)), string(bodies[i]))
	}
	whole := string(frame)
	_ = append(got[0].Body(frame), "overwrites nothing"...)
	assert.Equal(t, string(frame), whole)
}

// What is no frame names what is wrong, and nothing of it is executed.
func TestEntries_refused(t *testing.T) {
	entry := func(name, body int) []byte {
		return wire.AppendEntry(nil, bytes.Repeat([]byte("n"), name), make([]byte, body))
	}
	for name, tc := range map[string]struct {
		frame []byte
		want  string
	}{
		"nothing":           {nil, "it is empty"},
		"no name":           {entry(0, 1), "entry 1 can't be read"},
		"a long name":       {entry(wire.MaxToken+1, 1), "entry 1 can't be read"},
		"a long body":       {append(entry(20, 1), entry(20, wire.MaxEntryBody+1)...), "entry 2 can't be read"},
		"too many":          {bytes.Repeat(entry(20, 1), wire.MaxEntries+1), "more than 32 entries"},
		"too much":          {make([]byte, wire.MaxBatch+1), "65537 bytes, at most 65536"},
		"cut in the name":   {entry(20, 5)[:10], "entry 1 can't be read"},
		"cut in the body":   {entry(20, 5)[:24], "entry 1 can't be read"},
		"cut before":        {entry(20, 5)[:21], "entry 1 can't be read"},
		"a length too many": {append(entry(20, 5), 0x80), "entry 2 can't be read"},
		"a length of 2^64":  {append(bytes.Repeat([]byte{0xff}, 10), 1), "entry 1 can't be read"},
		"all that is left":  {binary.AppendUvarint(nil, 1<<63), "entry 1 can't be read"},
	} {
		_, err := wire.ReadEntries(nil, tc.frame)
		assert.True(t, err != nil, name)
		assert.Contains(t, err.Message, tc.want)
		assert.Equal(t, err.Code, endpoint.InvalidArgument, name)
		assert.Equal(t, err.Outcome(), endpoint.NotExecuted, name)
	}
}

// isCall reports whether an entry with that name can be read, and is a call.
func isCall(token string) bool {
	frame := wire.AppendEntry(nil, token, []byte("body"))
	entries, err := wire.ReadEntries(nil, frame)
	return err == nil && entries[0].IsCall(frame)
}

func TestEntryIsCall(t *testing.T) {
	for token, want := range map[string]bool{
		"0007063UfDVRKBz~d2S": true, "0007063UfDVRKBz~a1~i1": true, "abcdefghijkl~x": true,
		"": false, "0007063UfDVRKBz": false, "0007063UfDVRKBz~": false, "short~d2S": false, "0007063UfD.RKBz~d2S": false,
		"0007063\r\nRKBz~d2S": false, strings.Repeat("n", wire.MaxToken) + "~d": false,
	} {
		assert.Equal(t, isCall(token), want, token)
	}
}

// FuzzEntries: whatever arrives is refused, or is entries that lie in the frame one after the other and say the same again.
func FuzzEntries(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(wire.AppendEntry(wire.AppendEntry(nil, "0007063UfDVRKBz~d2S", []byte("{}")), "0008063UfDVRKBz~d2S", nil))
	f.Add([]byte("\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		entries, err := wire.ReadEntries(nil, frame)
		if err != nil {
			return
		}
		if len(entries) == 0 || len(entries) > wire.MaxEntries || len(frame) > wire.MaxBatch {
			t.Fatalf("%d entries in %d bytes", len(entries), len(frame))
		}
		var again []byte
		for _, e := range entries {
			again = wire.AppendEntry(again, wire.Name(e, frame), e.Body(frame))
		}
		twice, err := wire.ReadEntries(nil, again)
		if err != nil || len(twice) != len(entries) || len(again) > len(frame) {
			t.Fatalf("%d bytes became %d, and say %d entries of %d: %v", len(frame), len(again), len(twice), len(entries), err)
		}
	})
}
