package codec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"

	"postbus.example/internal/fields"
)

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// CheckType refuses channels, functions, complex numbers and maps with keys that JSON can't have, at any depth.
func (*jsonCodec) CheckType(t reflect.Type) error {
	if t == nil {
		return &TypeError{Codec: jsonName, Path: typeName(t), Reason: "a message needs a type"}
	}
	return jsonCheck{}.check(deref(t), typeName(t), true)
}

// jsonCheck holds what was found good or is being looked at, which ends the walk through recursive types.
type jsonCheck map[jsonPlace]bool

// jsonPlace is a type and whether its values are addressable there: only then encoding/json takes a Marshaler with
// a pointer receiver. Messages are pointers, so that all their parts are addressable but the values of maps.
type jsonPlace struct {
	t    reflect.Type
	addr bool
}

func (c jsonCheck) check(t reflect.Type, path string, addr bool) error {
	at := jsonPlace{t, addr}
	if c[at] || encodesItself(t, addr) {
		return nil
	}
	c[at] = true
	refuse := func(reason string) error { return &TypeError{Codec: jsonName, Type: t, Path: path, Reason: reason} }
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return refuse("JSON has no such thing")
	case reflect.Pointer:
		return c.check(t.Elem(), path, true)
	case reflect.Slice:
		return c.check(t.Elem(), path+"[]", true)
	case reflect.Array:
		return c.check(t.Elem(), path+"[]", addr)
	case reflect.Map:
		if k := t.Key(); !jsonKey(k) {
			return refuse(fmt.Sprintf("a map key must be a string, an integer or a TextMarshaler, not %v", k))
		}
		return c.check(t.Elem(), path+"[]", false)
	case reflect.Struct:
		for _, f := range fields.JSON.Of(t) { // hidden fields may be of any type
			if err := c.check(f.Type, path+f.Path, addr || f.ViaPtr); err != nil {
				return err
			}
		}
	}
	return nil
}

func encodesItself(t reflect.Type, addr bool) bool {
	if t.Implements(jsonMarshaler) || t.Implements(textMarshaler) {
		return true
	}
	if !addr || t.Kind() == reflect.Pointer {
		return false
	}
	p := reflect.PointerTo(t)
	return p.Implements(jsonMarshaler) || p.Implements(textMarshaler)
}

func jsonKey(k reflect.Type) bool {
	switch k.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return k.Implements(textMarshaler)
}
