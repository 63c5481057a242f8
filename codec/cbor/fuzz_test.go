package cbor_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
)

type plain struct {
	A     int64     `json:"a"`
	Name  string    `json:"name"`
	Bytes []byte    `json:"bytes"`
	F     float64   `json:"f"`
	When  time.Time `json:"when"`
}

// FuzzDecode holds that no input panics, that errors are short DecodeErrors, that what was decoded can be sent on,
// and that a message of plain fields costs no more memory than its input explains.
func FuzzDecode(f *testing.F) {
	data, err := cbor.CBOR.Append(nil, &plain{1, "name", []byte{1, 2}, 0.5, time.Unix(1e9, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, s := range []string{"", "\xa0", "\x9f\x01\xff", "\xbf\x61a\x01\xff", "\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "\x81\x81\x81\x81", "\xc2\x41\x01", "\xff", "\x5f\x41a\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []any{new(any), &plain{}, &rec{}, &sample{}, new([]int), new(map[string]any)} {
			err := cbor.CBOR.Decode(data, v)
			if e, ok := errors.AsType[*codec.DecodeError](err); err != nil && (!ok || e.Problem == "" || len(err.Error()) > 512) {
				t.Fatalf("%T: %v", err, err)
			}
			if _, ok := v.(*plain); ok && err == nil && len(data) > 0 {
				if _, err := cbor.CBOR.Append(nil, v); err != nil {
					t.Fatalf("decoded, but can't be encoded: %v", err)
				}
			}
		}
		if used := allocated(func() { _ = cbor.CBOR.Decode(data, &plain{}) }); used > 4*uint64(len(data))+64<<10 {
			t.Fatalf("%d bytes of input cost %d of memory", len(data), used)
		}
	})
}

// allocated returns the least memory that f took in a few runs: other goroutines allocate, too.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
