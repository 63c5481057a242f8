package cbor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/codec/codectest"
	"postbus.example/internal/assert"
)

type cyclic struct {
	Next *cyclic
	Any  any
}

func TestConformance(t *testing.T) {
	codectest.Run(t, cbor.CBOR, codectest.Unencodable(
		func() any { c := &cyclic{}; c.Next = c; return c },
		func() any { c := &cyclic{}; c.Any = c; return c },
		func() any { m := map[string]any{}; m["m"] = m; return &m },
		func() any { s := []any{nil, nil}; s[0], s[1] = s, s; return &s },
		func() any { return new(any(make(chan int))) },
		func() any { return new(1i) },
	))
}

type sample struct {
	A    int            `json:"a"`
	Name string         `json:"name,omitempty"`
	When time.Time      `json:"when"`
	Addr netip.Addr     `json:"addr"`
	Big  *big.Int       `json:"big"`
	Any  any            `json:"any"`
	Map  map[string]any `json:"map"`
	Not  chan int       `json:"-"`
	Own  int            `cbor:"own" json:"ignored"`
}

func TestPlainStructs(t *testing.T) {
	in := sample{
		A: 1, When: time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 3600)), Addr: netip.MustParseAddr("10.0.0.1"),
		Big: new(big.Int).Lsh(big.NewInt(1), 100), Any: map[string]any{"k": []any{"v", true, nil}}, Own: 7,
	}
	data, err := cbor.CBOR.Append(nil, &in)
	assert.NoError(t, err)
	assert.True(t, bytes.Contains(data, []byte("\x61a\x01")) && bytes.Contains(data, []byte("\x63own\x07")) && !bytes.Contains(data, []byte("name")))
	var out sample
	assert.NoError(t, cbor.CBOR.Decode(data, &out))
	assert.True(t, out.When.Equal(in.When))
	out.When = in.When // the zone is another pointer
	assert.Equal(t, out, in)
}

func TestKeysMatchWithoutCase(t *testing.T) {
	var got struct{ Sum int }
	assert.NoError(t, cbor.CBOR.Decode([]byte("\xa2\x63sum\x05\x67unknown\x81\x01"), &got))
	assert.Equal(t, got.Sum, 5)
}

func TestEmptyBody(t *testing.T) {
	assert.NoError(t, cbor.CBOR.Decode(nil, &struct{}{}))
	for _, v := range []any{&sample{}, new(any), &[]int{}} {
		e, ok := errors.AsType[*codec.DecodeError](cbor.CBOR.Decode(nil, v))
		assert.True(t, ok)
		assert.Equal(t, e.Error(), "the body is empty, want CBOR")
	}
	_, blamed := errors.AsType[*codec.DecodeError](cbor.CBOR.Decode(nil, nil))
	assert.True(t, !blamed)
}

func TestDecodeErrors(t *testing.T) {
	type line struct {
		Price uint8 `json:"price"`
	}
	type order struct {
		Lines []line          `json:"lines"`
		Done  bool            `json:"done"`
		Text  string          `json:"text"`
		Bytes []byte          `json:"bytes"`
		F     float32         `json:"f"`
		M     map[string]int8 `json:"m"`
		When  time.Time       `json:"when"`
		Addr  netip.Addr      `json:"addr"`
	}
	for _, tt := range []struct{ hex, want string }{
		{"a165" + hex.EncodeToString([]byte("lines")) + "81a165" + hex.EncodeToString([]byte("price")) + "190100", `field "lines": can't take CBOR positive integer, want an integer that fits uint8`},
		{"a165" + hex.EncodeToString([]byte("lines")) + "01", `field "lines": can't take CBOR positive integer, want an array`},
		{"a164" + hex.EncodeToString([]byte("done")) + "01", `field "done": can't take CBOR positive integer, want a boolean`},
		{"a164" + hex.EncodeToString([]byte("text")) + "01", `field "text": can't take CBOR positive integer, want a text string`},
		{"a165" + hex.EncodeToString([]byte("bytes")) + "6161", `field "bytes": can't take CBOR UTF-8 text string, want a byte string`},
		{"a161" + hex.EncodeToString([]byte("f")) + "6161", `field "f": can't take CBOR UTF-8 text string, want a number`},
		{"a161" + hex.EncodeToString([]byte("m")) + "80", `field "m": can't take CBOR array, want a map`},
		{"a164" + hex.EncodeToString([]byte("addr")) + "4101", `CBOR of the wrong form`},
		{"01", `can't take CBOR positive integer, want another type`},
		{"a2616101616102", `a map has one key twice, again at index 1`},
		{"a1", `malformed CBOR: unexpected end of data`},
		{"a000", `malformed CBOR: 1 bytes of extraneous data starting at index 1`},
		{"ff", `malformed CBOR: unexpected "break" code`},
		{"a161f4", `malformed CBOR: unexpected end of data`},
		{"a16474657874" + "61ff", `malformed CBOR: invalid UTF-8 string`},
		{strings.Repeat("81", 300) + "01", `malformed CBOR: exceeded max nested level 256`},
		{"9a00100000", `malformed CBOR: exceeded max number of elements 131072 for CBOR array`},
		{"ba00100000", `malformed CBOR: exceeded max number of key-value pairs 131072 for CBOR map`},
	} {
		data, err := hex.DecodeString(tt.hex)
		assert.NoError(t, err)
		e, ok := errors.AsType[*codec.DecodeError](cbor.CBOR.Decode(data, &order{}))
		assert.True(t, ok, tt.want)
		assert.Equal(t, e.Error(), tt.want)
		assert.True(t, e.Cause != nil)
	}
}

// TestBombs holds that claims cost nothing: what is allocated depends on the data there is.
func TestBombs(t *testing.T) {
	for _, bomb := range []string{"9a0001ffff", "ba0001ffff", "5a7fffffff", "7a7fffffff", "5bffffffffffffffff", "9bffffffffffffffff", "c25a7fffffff"} {
		data, _ := hex.DecodeString(bomb)
		for _, v := range []any{new(any), new([]int), new([]byte), new(string), &sample{}, new(map[string]int)} {
			used := allocated(func() { assert.True(t, cbor.CBOR.Decode(data, v) != nil) })
			assert.True(t, used < 64<<10, bomb, reflect.TypeOf(v).String())
		}
	}
}

type list struct {
	Next *list `json:"n,omitempty"`
}

func chain(n int) *list {
	l := &list{}
	for range n - 1 {
		l = &list{Next: l}
	}
	return l
}

func TestDepthAgrees(t *testing.T) {
	data, err := cbor.CBOR.Append(nil, chain(255))
	assert.NoError(t, err)
	assert.NoError(t, cbor.CBOR.Decode(data, &list{}))
	_, err = cbor.CBOR.Append(nil, chain(257))
	assert.Contains(t, err.Error(), "nested too deep")
	tree := any("leaf")
	for range 254 {
		tree = map[string]any{"x": tree}
	}
	tree = []any{tree, time.Now()}
	data, err = cbor.CBOR.Append(nil, &tree)
	assert.NoError(t, err)
	var got any
	assert.NoError(t, cbor.CBOR.Decode(data, &got))
}

type (
	Base  struct{ Done chan int }
	hides struct {
		Base
		Done string
	}
	textual struct{ C chan int }
	rec     struct {
		Next *rec
		Kids map[string][]rec
	}
	Order struct {
		Lines []struct{ Meta map[string]Base }
	}
)

func (*textual) MarshalText() ([]byte, error) { return []byte("t"), nil }

func TestCheckType(t *testing.T) {
	ch := make(chan int)
	for _, tt := range []struct {
		v    any
		path string
	}{
		{&sample{}, ""},
		{&rec{}, ""},
		{new(any), ""},
		{&time.Time{}, ""},
		{&big.Int{}, ""},
		{&hides{Base{ch}, "x"}, ""},
		{&struct{}{}, ""},
		{&map[string]textual{"a": {ch}}, ""},
		{&[]textual{{}}, ""},
		{&map[[2]int]bool{{}: true}, ""},
		{&map[float64]bool{1: true}, ""},
		{&ch, "chan int"},
		{new(uintptr(1)), "uintptr"},
		{new(1i), "complex128"},
		{&[]func(){nil}, "[]func()[]"},
		{&map[chan int]int{ch: 1}, "map[chan int]int"},
		{&Base{ch}, "Base.Done"},
		{&struct{ Base }{Base{ch}}, "*"},
		{&Order{Lines: []struct{ Meta map[string]Base }{{map[string]Base{"a": {ch}}}}}, "Order.Lines[].Meta[].Done"},
		{&struct {
			C chan int `json:"c" cbor:"-"`
		}{}, ""},
		{&struct {
			C chan int `json:"-" cbor:"c"`
		}{}, "*"},
		{&struct{ c chan int }{}, ""},
	} {
		_, err := cbor.CBOR.Append(nil, tt.v)
		typ := reflect.TypeOf(tt.v).Elem()
		assert.Equal(t, err == nil, tt.path == "", typ.String(), "Append")
		err = cbor.CBOR.(codec.TypeChecker).CheckType(typ)
		assert.Equal(t, err == nil, tt.path == "", typ.String())
		if err != nil && tt.path != "*" {
			e, _ := errors.AsType[*codec.TypeError](err)
			assert.Equal(t, e.Path, tt.path)
		}
	}
	assert.True(t, cbor.CBOR.(codec.TypeChecker).CheckType(nil) != nil)
	type p *p // Append is not tried: the library looks for the end of it
	assert.Contains(t, cbor.CBOR.(codec.TypeChecker).CheckType(reflect.TypeFor[struct{ P p }]()).Error(), "points to nothing but itself")
}

func TestAppendUsesTheBuffer(t *testing.T) {
	buf := append(make([]byte, 0, 512), "prefix"...)
	out, err := cbor.CBOR.Append(buf, &sample{A: 1})
	assert.NoError(t, err)
	assert.True(t, &out[0] == &buf[0] && string(out[:6]) == "prefix")
	got, err := cbor.CBOR.Append(nil, &list{})
	assert.NoError(t, err)
	got2, err := cbor.CBOR.Append(got[:1:1], &list{Next: &list{}})
	assert.NoError(t, err)
	assert.Equal(t, got2, []byte("\xa0\xa1\x61n\xa0"), "a head rewritten behind a prefix")
}

// TestAllocs holds that a message is written where the caller says, and that decoding takes memory for what it has to
// keep only.
func TestAllocs(t *testing.T) {
	type numbers struct {
		A int     `json:"a"`
		B float64 `json:"b"`
	}
	m, buf, got := &numbers{1, 0.5}, make([]byte, 0, 64), new(numbers)
	data, err := cbor.CBOR.Append(nil, m)
	assert.NoError(t, err)
	assert.Equal(t, testing.AllocsPerRun(100, func() { _ = cbor.CBOR.Decode(data, got) }), 0.0, "decode")
	assert.Equal(t, *got, *m)
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop values at random, which costs allocations")
	}
	assert.Equal(t, testing.AllocsPerRun(100, func() { _, _ = cbor.CBOR.Append(buf, m) }), 0.0, "append")
}

func BenchmarkCBOR(b *testing.B) {
	m, buf := &struct {
		A    int
		Name string
	}{1, "name"}, make([]byte, 0, 64)
	data, err := cbor.CBOR.Append(nil, m)
	assert.NoError(b, err)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = cbor.CBOR.Append(buf, m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = cbor.CBOR.Decode(data, m)
		}
	})
}
