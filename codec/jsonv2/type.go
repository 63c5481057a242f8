package jsonv2

import (
	"encoding"
	stdjson "encoding/json"
	"reflect"
	"strings"
	"sync"

	json "github.com/go-json-experiment/json"
)

// known holds for each type that was met whether it is plain, so that it is walked once.
var known sync.Map // reflect.Type to bool

// plainMessage reports whether v points to a value of a plain type.
func plainMessage(v any) bool {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return false
	}
	t := p.Type()
	if is, ok := known.Load(t); ok {
		return is.(bool)
	}
	is := plain(t, map[reflect.Type]bool{})
	known.Store(t, is)
	return is
}

// plain is cautious: it knows what the engines surely agree about. seen ends it where types are recursive.
func plain(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return true
	}
	seen[t] = true
	if t == reflect.TypeFor[stdjson.Number]() || decodesItself(t) {
		return false
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return plain(t.Elem(), seen)
	case reflect.Map:
		return plain(t.Key(), seen) && plain(t.Elem(), seen)
	case reflect.Struct:
		return plainStruct(t, seen)
	}
	return false
}

func plainStruct(t reflect.Type, seen map[reflect.Type]bool) bool {
	keys := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if f.Anonymous {
			return false
		}
		if !f.IsExported() || tag == "-" {
			if tag != "" && tag != "-" {
				return false // what is ignored by one engine is a mistake to the other
			}
			continue
		}
		key, ok := plainTag(f.Name, tag)
		if !ok || keys[key] || !plain(f.Type, seen) {
			return false
		}
		keys[key] = true
	}
	return true
}

// plainTag returns the key of a field without its case, if its tag has nothing that needs interpretation.
func plainTag(name, tag string) (key string, ok bool) {
	key, options, _ := strings.Cut(tag, ",")
	for option := range strings.SplitSeq(options, ",") {
		if option != "" && option != "omitempty" && option != "omitzero" {
			return "", false
		}
	}
	if key == "" {
		key = name
	}
	for _, c := range []byte(key) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' {
			return "", false
		}
	}
	return strings.ToLower(key), true
}

var decoders = []reflect.Type{
	reflect.TypeFor[json.Unmarshaler](),
	reflect.TypeFor[json.UnmarshalerFrom](),
	reflect.TypeFor[encoding.TextUnmarshaler](),
}

func decodesItself(t reflect.Type) bool {
	for _, d := range decoders {
		if t.Implements(d) || t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(d) {
			return true
		}
	}
	return false
}
