package codec_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"postbus.example/codec"
	"postbus.example/internal/assert"
)

type (
	selfValue   struct{ C chan int } // encodes itself, by value
	selfPointer struct{ C chan int } // encodes itself, if it has an address
	textKey     struct{ A int }

	node struct {
		Next *node
		Kids map[string][]node
	}
	broken struct {
		Next *broken
		C    chan int
	}
	loop []loop

	Base      struct{ Done chan int }
	Other     struct{ Done chan int }
	lower     struct{ Done chan int }
	lowerFunc func()
	UpperFunc func()
	hides     struct {
		Base
		Done string
	}
	hidesByTag struct {
		Base
		D string `json:"Done"`
	}
	ties struct {
		Base
		Other
	}
	twice struct {
		left
		right
	}
	left      struct{ Base }
	right     struct{ Base }
	tieBroken struct {
		Base
		Tagged
	}
	Tagged struct {
		D string `json:"Done"`
	}
	ptrBase struct{ *Base }
	Order   struct {
		Lines []struct{ Meta map[string]Base }
	}
)

func (selfValue) MarshalJSON() ([]byte, error)    { return []byte("1"), nil }
func (*selfPointer) MarshalJSON() ([]byte, error) { return []byte("1"), nil }
func (textKey) MarshalText() ([]byte, error)      { return []byte("k"), nil }

var (
	ch   = make(chan int)
	f    = func() {}
	base = Base{ch}
)

var jsonTypes = []struct {
	v    any    // a pointer to the message
	path string // where the trouble is, "" if there is none
}{
	{new(1), ""},
	{new("x"), ""},
	{new(any("x")), ""},
	{&struct{}{}, ""},
	{&time.Time{}, ""},
	{new(json.RawMessage("1")), ""},
	{new(uintptr(1)), ""},
	{&node{Next: &node{}, Kids: map[string][]node{"a": {{}}}}, ""},
	{&loop{{}, {}}, ""},
	{new(ch), "chan int"},
	{new(f), "func()"},
	{new(1i), "complex128"},
	{new(complex64(1)), "complex64"},
	{new(unsafe.Pointer(nil)), "Pointer"},
	{new(&ch), "*chan int"},
	{&[]chan int{ch}, "[]chan int[]"},
	{&[1]func(){f}, "[1]func()[]"},
	{&map[string]chan int{"a": ch}, "map[string]chan int[]"},
	{&broken{}, "broken.C"},
	{&map[int8]int{1: 1}, ""},
	{&map[textKey]int{{}: 1}, ""},
	{&map[bool]int{true: 1}, "map[bool]int"},
	{&map[float64]int{1: 1}, "map[float64]int"},
	{&map[[1]int]int{{}: 1}, "map[[1]int]int"},
	{&map[any]int{1: 1}, "map[interface {}]int"},
	{&selfValue{}, ""},
	{&selfPointer{}, ""},
	{&[]selfPointer{{}}, ""},
	{&[1]selfPointer{}, ""},
	{&struct{ S selfPointer }{}, ""},
	{&map[string]selfValue{"a": {}}, ""},
	{&map[string]*selfPointer{"a": {}}, ""},
	{&map[string][]selfPointer{"a": {{}}}, ""},
	{&map[string]selfPointer{"a": {ch}}, "map[string]codec_test.selfPointer[].C"},
	{&map[string][1]selfPointer{"a": {{ch}}}, "map[string][1]codec_test.selfPointer[][].C"},
	{&map[string]struct{ S selfPointer }{"a": {selfPointer{ch}}}, "map[string]struct { S codec_test.selfPointer }[].S.C"},
	{&struct {
		A selfPointer
		M map[string]selfPointer
	}{M: map[string]selfPointer{"a": {}}}, "*"},
	{&struct {
		C chan int `json:"-"`
	}{}, ""},
	{&struct {
		C chan int `json:"-,"`
	}{}, "*"},
	{&struct {
		C chan int `json:",omitempty"`
	}{ch}, "*"},
	{&struct{ c chan int }{}, ""},
	{&base, "Base.Done"},
	{&struct{ Base }{base}, "*"},
	{&struct{ lower }{lower{ch}}, "*"},
	{&struct{ lowerFunc }{f}, ""},
	{&struct{ UpperFunc }{f}, "*"},
	{&ptrBase{&base}, "ptrBase.Base.Done"},
	{&hides{base, "x"}, ""},
	{&hidesByTag{base, "x"}, ""},
	{&ties{base, Other{ch}}, ""},
	{&tieBroken{base, Tagged{"x"}}, ""},
	{&twice{left{base}, right{base}}, ""},
	{&struct {
		Base `json:"b"`
	}{base}, "*"},
	{&struct {
		Base `json:"-"`
	}{base}, ""},
	{&struct {
		Base `json:"\"bad"`
	}{base}, "*"},
	{&Order{Lines: []struct{ Meta map[string]Base }{{map[string]Base{"a": base}}}}, "Order.Lines[].Meta[].Done"},
	{&struct {
		selfValue
		X int
	}{}, ""},
	{&struct {
		time.Time
		C chan int
	}{C: ch}, ""},
}

// TestJSONCheckType holds CheckType against encoding/json itself: values, filled so that every type in them is met,
// are encoded if and only if their type passes.
func TestJSONCheckType(t *testing.T) {
	for _, tt := range jsonTypes {
		typ := reflect.TypeOf(tt.v)
		_, std := json.Marshal(tt.v)
		assert.Equal(t, std == nil, tt.path == "", typ.String(), "encoding/json itself")
		for _, typ := range []reflect.Type{typ, typ.Elem()} {
			err := codec.JSON.(codec.TypeChecker).CheckType(typ)
			assert.Equal(t, err == nil, tt.path == "", typ.String())
			if err == nil {
				continue
			}
			e, ok := errors.AsType[*codec.TypeError](err)
			assert.True(t, ok && e.Reason != "" && e.Codec == "application/json", typ.String())
			if tt.path != "*" && typ.Kind() != reflect.Pointer {
				assert.Equal(t, e.Path, tt.path)
			}
		}
	}
	assert.Contains(t, codec.JSON.(codec.TypeChecker).CheckType(nil).Error(), "application/json can't encode nil")
	assert.Equal(t, codec.JSON.(codec.TypeChecker).CheckType(reflect.TypeFor[Order]()).Error(),
		"application/json can't encode Order.Lines[].Meta[].Done of type chan int: JSON has no such thing")
}
