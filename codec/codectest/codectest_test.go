package codectest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/codectest"
	"postbus.example/internal/assert"
)

// fake is codec.JSON with parts that can be broken.
type fake struct {
	name    func() string
	append  func(dst []byte, v any) ([]byte, error)
	decode  func(data []byte, v any) error
	accepts func(reflect.Type) error
}

func (f *fake) Name() string {
	if f.name != nil {
		return f.name()
	}
	return "application/x-fake"
}

func (f *fake) Append(dst []byte, v any) ([]byte, error) {
	if f.append != nil {
		return f.append(dst, v)
	}
	return codec.JSON.Append(dst, v)
}

func (f *fake) Decode(data []byte, v any) error {
	if f.decode != nil {
		return f.decode(data, v)
	}
	return codec.JSON.Decode(data, v)
}

func (f *fake) CheckType(t reflect.Type) error {
	if f.accepts != nil {
		return f.accepts(t)
	}
	return codec.JSON.(codec.TypeChecker).CheckType(t)
}

func TestSoundCodecPasses(t *testing.T) {
	codectest.Run(t, codec.JSON)
	codectest.Run(t, &fake{})
	assert.NoError(t, codectest.Check(codec.JSON))
}

type note struct{ Text string }

func TestOptions(t *testing.T) {
	assert.NoError(t, codectest.Check(codec.Raw, codectest.SharesInput(), codectest.Samples(func() any { return &[]byte{1, 2} })))
	err := codectest.Check(codec.Raw, codectest.Samples(func() any { return &[]byte{1, 2} }))
	assert.Contains(t, err.Error(), "decode retains nothing: ")
	calls := 0
	var mu sync.Mutex
	equal := func(got, want any) bool {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return reflect.DeepEqual(got, want)
	}
	assert.NoError(t, codectest.Check(codec.JSON, codectest.Equal(equal), codectest.Samples(func() any { return &note{"x"} }),
		codectest.Unencodable(func() any { return &map[string]any{"c": make(chan int)} })))
	assert.True(t, calls > 0, "Equal was used")
	for _, wrong := range []func() any{func() any { return note{} }, func() any { return nil }} {
		assert.Contains(t, codectest.Check(codec.JSON, codectest.Samples(wrong)).Error(), "is not a pointer")
	}
	assert.Contains(t, codectest.Check(codec.JSON, codectest.Samples()).Error(), "no samples")
	assert.Contains(t, codectest.Check(nil).Error(), "codec is nil")
	assert.Contains(t, codectest.Check(codec.JSON, codectest.Unencodable(func() any { return &note{} })).Error(), "unencodable: ")
}

var bad = &codec.DecodeError{Offset: -1, Problem: "no"}

// breakages are codecs with one obligation broken each.
var breakages = []struct {
	caught string // the obligation that must complain
	codec  func() codec.Codec
}{
	{"name", func() codec.Codec { return &fake{name: func() string { return "Application/JSON" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { return "json" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { return "" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { return "a/b; v=1" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { return "a/b/c" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { return "*/*" }} }},
	{"name", func() codec.Codec { return &fake{name: func() string { panic("nameless") }} }},
	{"name", func() codec.Codec {
		n := 0
		return &fake{name: func() string { n++; return fmt.Sprintf("a/b%d", n) }}
	}},
	{"round trip", func() codec.Codec { return &fake{decode: func([]byte, any) error { return nil }} }},
	{"round trip", func() codec.Codec { return &fake{decode: func([]byte, any) error { return bad }} }},
	{"round trip", func() codec.Codec { return &fake{append: func([]byte, any) ([]byte, error) { return nil, bad }} }},
	{"append to a prefix", func() codec.Codec { return &fake{append: overwritesPrefix} }},
	{"append to a prefix", func() codec.Codec { return &fake{append: dropsPrefix} }},
	{"append to a prefix", func() codec.Codec { return &fake{append: spoilsOnError} }},
	{"append leaves the message alone", func() codec.Codec { return &fake{append: changesMessage} }},
	{"append retains nothing", func() codec.Codec {
		var shared []byte
		return &fake{append: func(dst []byte, v any) ([]byte, error) {
			if dst != nil {
				return codec.JSON.Append(dst, v)
			}
			var err error
			shared, err = codec.JSON.Append(shared[:0], v)
			return shared, err
		}}
	}},
	{"append retains nothing", func() codec.Codec {
		var (
			mu   sync.Mutex
			kept []byte
		)
		return &fake{append: func(dst []byte, v any) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if cap(kept) > 0 {
				kept[:1][0]++
			}
			if kept = nil; cap(dst) != 256 { // those come from many goroutines: it would be a data race
				kept = dst
			}
			return codec.JSON.Append(dst, v)
		}}
	}},
	{"decode leaves its input alone", func() codec.Codec { return &fake{decode: scribbles} }},
	{"decode leaves its input alone", func() codec.Codec { return &fake{decode: appendsToInput} }},
	{"garbage", func() codec.Codec { return &fake{decode: panicsOnGarbage} }},
	{"garbage", func() codec.Codec { return &fake{decode: indexesBlindly} }},
	{"garbage", func() codec.Codec { return &fake{decode: failsWith(errors.New("plain"))} }},
	{"garbage", func() codec.Codec { return &fake{decode: failsWith(&codec.DecodeError{Offset: -1})} }},
	{"garbage", func() codec.Codec {
		return &fake{decode: failsWith(&codec.DecodeError{Offset: 1 << 40, Problem: "far"})}
	}},
	{"garbage", func() codec.Codec {
		return &fake{decode: failsWith(&codec.DecodeError{Problem: strings.Repeat("long", 1000)})}
	}},
	{"unencodable", func() codec.Codec { return &fake{append: encodesAnything} }},
	{"unencodable", func() codec.Codec { return &fake{append: panicsOnError} }},
	{"wrong target", func() codec.Codec { return &fake{decode: blamesSender} }},
	{"wrong target", func() codec.Codec {
		return &fake{append: func(dst []byte, v any) ([]byte, error) {
			_ = reflect.TypeOf(v).Elem()
			return codec.JSON.Append(dst, v)
		}}
	}},
	{"check type", func() codec.Codec { return &fake{accepts: func(reflect.Type) error { return nil }} }},
	{"check type", func() codec.Codec { return &fake{accepts: func(reflect.Type) error { return bad }} }},
	{"check type", func() codec.Codec { return &fake{accepts: func(reflect.Type) error { panic("type") }} }},
	{"check type", func() codec.Codec {
		return &fake{accepts: func(t reflect.Type) error {
			_ = t.Kind() // nil
			return codec.JSON.(codec.TypeChecker).CheckType(t)
		}}
	}},
	{"concurrency", func() codec.Codec { return &busy{} }},
}

// TestBrokenCodecIsCaught breaks one obligation at a time.
func TestBrokenCodecIsCaught(t *testing.T) {
	for _, tt := range breakages {
		t.Run(tt.caught, func(t *testing.T) {
			one := codectest.Samples(func() any { return &note{"one is enough, and quicker"} })
			err := codectest.Check(tt.codec(), one)
			assert.True(t, err != nil, "broken codec must be caught")
			assert.True(t, strings.Contains("\n"+err.Error(), "\n"+tt.caught+": "), tt.caught, "must complain, got", err.Error())
		})
	}
}

// busy fails while another goroutine is in it, as a codec with a scratch buffer of its own does. (That one would be a
// data race, which is for the race detector to find.)
type busy struct {
	fake
	mu sync.Mutex
}

func (b *busy) Append(dst []byte, v any) ([]byte, error) {
	if !b.mu.TryLock() {
		return nil, errors.New("busy")
	}
	defer b.mu.Unlock()
	runtime.Gosched() // let the others run into it
	return codec.JSON.Append(dst, v)
}

func overwritesPrefix(dst []byte, v any) ([]byte, error) {
	if len(dst) > 0 {
		dst[0] = 'X'
	}
	return codec.JSON.Append(dst, v)
}

func dropsPrefix(_ []byte, v any) ([]byte, error) { return json.Marshal(v) }

func spoilsOnError(dst []byte, v any) ([]byte, error) {
	out, err := codec.JSON.Append(dst, v)
	if err != nil && len(dst) > 0 {
		dst[0] = 'X'
	}
	return out, err
}

func changesMessage(dst []byte, v any) ([]byte, error) {
	out, err := codec.JSON.Append(dst, v)
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
		p.Elem().SetZero()
	}
	return out, err
}

func scribbles(data []byte, v any) error {
	err := codec.JSON.Decode(data, v)
	if len(data) > 0 {
		data[0] = 0
	}
	return err
}

func appendsToInput(data []byte, v any) error { return codec.JSON.Decode(append(data, ' '), v) }

func panicsOnGarbage(data []byte, v any) error {
	if err := codec.JSON.Decode(data, v); err != nil {
		panic(err)
	}
	return nil
}

func indexesBlindly(data []byte, v any) error {
	_ = data[0]
	return codec.JSON.Decode(data, v)
}

func failsWith(wrong error) func([]byte, any) error {
	return func(data []byte, v any) error {
		if codec.JSON.Decode(data, v) != nil {
			return wrong
		}
		return nil
	}
}

func encodesAnything(dst []byte, v any) ([]byte, error) {
	if out, err := codec.JSON.Append(dst, v); err == nil {
		return out, nil
	}
	return append(dst, "null"...), nil
}

func panicsOnError(dst []byte, v any) ([]byte, error) {
	out, err := codec.JSON.Append(dst, v)
	if err != nil {
		panic(err)
	}
	return out, nil
}

func blamesSender(data []byte, v any) error {
	if err := codec.JSON.Decode(data, v); err != nil {
		return &codec.DecodeError{Offset: -1, Problem: err.Error()[:min(100, len(err.Error()))]}
	}
	return nil
}

// TestRetainedMemory has a message type of bytes, as sharing memory with strings takes unsafe code.
func TestRetainedMemory(t *testing.T) {
	sample := codectest.Samples(func() any { return &[]byte{1, 2, 3} })
	aliases := &fake{
		append: func(dst []byte, v any) ([]byte, error) {
			p, ok := v.(*[]byte)
			if !ok || p == nil {
				return nil, errors.New("not bytes")
			}
			if len(dst) == 0 {
				return *p, nil
			}
			return append(dst, *p...), nil
		},
		decode: codec.Raw.Decode, accepts: codec.Raw.(codec.TypeChecker).CheckType,
	}
	err := codectest.Check(aliases, sample)
	assert.True(t, err != nil)
	assert.Contains(t, err.Error(), "append leaves the message alone: Append returned memory of its message",
		"decode retains nothing: ")
}
