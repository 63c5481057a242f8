package cbor_test

import (
	"reflect"
	"testing"

	"postbus.example/codec"
	"postbus.example/codec/cbor"
	"postbus.example/internal/assert"
)

type (
	Left   struct{ Middle }
	Right  struct{ Middle }
	Middle struct {
		Base
		M int
	}
	Low     struct{ Lower }
	Lower   struct{ Lowest }
	Lowest  struct{ M chan int }
	Texts   struct{ Done string }
	Unnamed struct {
		Done string `json:",omitempty"`
	}
	Number struct {
		C chan int `cbor:"1,keyasint"`
	}
)

// TestFieldsOfTheLibrary holds CheckType against the library where its rules are not those of encoding/json.
func TestFieldsOfTheLibrary(t *testing.T) {
	ch := make(chan int)
	for _, tt := range []struct {
		rule string
		v    any
		ok   bool
	}{
		{"a struct embedded twice", &struct {
			Left
			Right
		}{}, true},
		{"hides nothing", &struct {
			Left
			Right
			Low
		}{Low: Low{Lower{Lowest{ch}}}}, false},
		{"equals tie", &struct {
			Base
			Texts
		}{Base: Base{ch}}, true},
		{"any tag wins", &struct {
			Base
			Unnamed
		}{Base: Base{ch}}, true},
		{"any name will do", &struct {
			Base
			D int `json:"Do'ne"`
			E int `json:"Done"`
		}{Base: Base{ch}}, true},
		{"an odd name stops flattening", &struct {
			Base `json:"\""`
			Done int
		}{Base: Base{ch}}, false},
		{"one number", &struct {
			Number
			D int `cbor:"+1,keyasint"`
		}{Number: Number{ch}}, true},
		{"a number is no text", &struct {
			Number
			D int `json:"1"`
		}{Number: Number{ch}}, false},
	} {
		_, err := cbor.CBOR.Append(nil, tt.v)
		assert.Equal(t, err == nil, tt.ok, tt.rule, "the library itself")
		err = cbor.CBOR.(codec.TypeChecker).CheckType(reflect.TypeOf(tt.v))
		assert.Equal(t, err == nil, tt.ok, tt.rule)
	}
}
