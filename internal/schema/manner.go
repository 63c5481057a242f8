package schema

import (
	"encoding"
	"encoding/json"
	"reflect"

	"postbus.example/internal/fields"
)

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// A manner is who writes the JSON of a value.
type manner int

const (
	byKind manner = iota // encoding/json, by the kind of the type
	byText               // MarshalText, as a string
	byJSON               // MarshalJSON
)

// mannerOf says how encoding/json encodes a value of type t, not a pointer. What stands in a map has no address,
// so that methods of *t are not called there.
func mannerOf(t reflect.Type, addr bool) manner {
	has := func(iface reflect.Type) bool {
		return t.Implements(iface) || addr && reflect.PointerTo(t).Implements(iface)
	}
	switch {
	case has(jsonMarshaler):
		return byJSON
	case has(textMarshaler):
		return byText
	default:
		return byKind
	}
}

// dependsOnAddr reports whether a value of type t is encoded differently without an address: t itself, or a part of
// it that is not behind a pointer, slice or map. Such parts can't be recursive.
func (b *builder) dependsOnAddr(t reflect.Type) bool {
	if known, ok := b.sensitive[t]; ok {
		return known
	}
	m := mannerOf(t, false)
	yes := t.Kind() != reflect.Pointer && m != mannerOf(t, true)
	if !yes && m == byKind {
		switch t.Kind() {
		case reflect.Array:
			yes = b.dependsOnAddr(t.Elem())
		case reflect.Struct:
			for _, f := range fields.JSON.Of(t) {
				yes = yes || !f.ViaPtr && b.dependsOnAddr(f.Type)
			}
		}
	}
	b.sensitive[t] = yes
	return yes
}

// isBytes reports whether a slice type is encoded as base64. Its elements may be a named byte, but not one with
// an encoding of its own.
func isBytes(t reflect.Type) bool {
	return t.Elem().Kind() == reflect.Uint8 && mannerOf(t.Elem(), true) == byKind
}
