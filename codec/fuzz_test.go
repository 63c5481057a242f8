package codec_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"testing"

	"postbus.example/codec"
)

// FuzzJSONDecode holds that no input panics, that errors are short DecodeErrors, that the codec and encoding/json
// agree, and that a message of plain fields costs no more memory than its input explains.
func FuzzJSONDecode(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"name":"x"}`, `{"A":"x"}`, `{"list":[{},{"any":[[[1]]]}]}`, `[[[[`, `"\ud800"`, ``, ` `, `{"a":1e999}`, "\x00\xff",
		`{"a":1}x`, `{"a":1}{"a":2}`, ` {"a":1} ` + "\n", `{"a":1,}`, `{"name":"}\\\""}`, `{"a":1]`, `[{"a":1}]`, ` {"a":"x"} `, `]{}`, `{}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want message
		err, wantErr := codec.JSON.Decode(data, &got), json.Unmarshal(data, &want)
		if (err == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; encoding/json %+v, %v", got, err, want, wantErr)
		}
		if d, ok := errors.AsType[*codec.DecodeError](err); ok && len(data) > 0 && d.Cause.Error() != wantErr.Error() {
			t.Fatalf("got %v; encoding/json %v", d.Cause, wantErr)
		}
		if e, ok := errors.AsType[*codec.DecodeError](err); err != nil && (!ok || e.Problem == "" || len(err.Error()) > 512) {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil && len(data) > 0 {
			if _, err := codec.JSON.Append(nil, &got); err != nil {
				t.Fatalf("decoded, but can't be encoded: %v", err)
			}
		}
		var plain small
		if used := allocated(func() { _ = codec.JSON.Decode(data, &plain) }); used > 4*uint64(len(data))+64<<10 {
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
