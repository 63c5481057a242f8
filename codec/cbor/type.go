package cbor

import (
	"encoding"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"postbus.example/codec"
)

var (
	marshalers = []reflect.Type{
		reflect.TypeFor[cbor.Marshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](),
		reflect.TypeFor[encoding.TextMarshaler](),
	}
	leaves = map[reflect.Type]bool{reflect.TypeFor[time.Time](): true, reflect.TypeFor[big.Int](): true}
)

// encodesItself reports whether t is encoded by a method or by the library's own rule. A pointer receiver counts:
// the library makes a copy where a value has no address.
func encodesItself(t reflect.Type) bool {
	if leaves[t] {
		return true
	}
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return false
	}
	for _, m := range marshalers {
		if reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	return false
}

// CheckType refuses channels, functions, complex numbers and pointers as numbers, at any depth.
func (cborCodec) CheckType(t reflect.Type) error {
	if t == nil {
		return &codec.TypeError{Codec: name, Path: "nil", Reason: "a message needs a type"}
	}
	path := deref(t).Name()
	if path == "" {
		path = deref(t).String()
	}
	return check(t, path, map[reflect.Type]bool{})
}

// check walks the types below t; seen ends it where types are recursive.
func check(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] || encodesItself(t) {
		return nil
	}
	seen[t] = true
	refuse := func(reason string) error {
		return &codec.TypeError{Codec: name, Type: t, Path: path, Reason: reason}
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return refuse("CBOR has no such thing")
	case reflect.Pointer:
		if bottomless(t) {
			return refuse("it points to nothing but itself")
		}
		return check(t.Elem(), path, seen)
	case reflect.Slice, reflect.Array:
		return check(t.Elem(), path+"[]", seen)
	case reflect.Map:
		if err := check(t.Key(), path+"[key]", seen); err != nil {
			return refuse(fmt.Sprintf("a map key can't be %v", t.Key()))
		}
		return check(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		for _, f := range fields(t) {
			if err := check(f.typ, path+f.path, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// bottomless finds types such as P in "type P *P".
func bottomless(t reflect.Type) bool {
	for range 16 {
		if t.Kind() != reflect.Pointer {
			return false
		}
		t = t.Elem()
	}
	return true
}

// structField is a struct field that the library looks at.
type structField struct {
	name   string
	path   string // the way to it in Go names, such as ".Base.Done"
	typ    reflect.Type
	depth  int
	tagged bool
}

// fields returns the fields of t that are encoded: embedded structs are flattened; of several fields with one key the
// shallowest wins, then the only tagged one, and otherwise none. Hidden fields may be of any type.
func fields(t reflect.Type) []structField {
	var all []structField
	seen := map[reflect.Type]bool{t: true}
	for level := []structField{{typ: t}}; len(level) > 0; {
		var next []structField
		for _, s := range level {
			for i := range s.typ.NumField() {
				sf := s.typ.Field(i)
				key, tagged, ok := fieldName(sf)
				f := structField{name: key, path: s.path + "." + sf.Name, typ: sf.Type, depth: s.depth + 1, tagged: tagged}
				switch {
				case !ok:
				case !sf.Anonymous || key != "" || deref(sf.Type).Kind() != reflect.Struct:
					if key == "" {
						f.name = sf.Name
					}
					all = append(all, f)
				case !seen[deref(sf.Type)]:
					f.typ = deref(sf.Type)
					next = append(next, f)
				}
			}
		}
		for _, s := range next {
			seen[s.typ] = true
		}
		level = next
	}
	return dominant(all)
}

// dominant leaves one field or none for each key, in order.
func dominant(all []structField) []structField {
	best := map[string]*structField{}
	for i := range all {
		f := &all[i]
		b, clash := best[f.name]
		switch {
		case !clash || f.depth == b.depth && f.tagged && !b.tagged:
			best[f.name] = f
		case f.depth == b.depth && f.tagged == b.tagged:
			best[f.name] = &structField{depth: b.depth, tagged: b.tagged} // a tie: none, unless a tagged one follows
		}
	}
	var out []structField
	for i := range all {
		if best[all[i].name] == &all[i] {
			out = append(out, all[i])
		}
	}
	return out
}

// fieldName returns the key in a field's tag, "" without one, whether there is a tag, and whether the field is
// encoded at all.
func fieldName(f reflect.StructField) (key string, tagged, ok bool) {
	tag := f.Tag.Get("cbor")
	if tag == "" {
		tag = f.Tag.Get("json")
	}
	if tag == "-" || !f.IsExported() && !(f.Anonymous && deref(f.Type).Kind() == reflect.Struct) {
		return "", false, false
	}
	key, _, _ = strings.Cut(tag, ",")
	return key, tag != "", true
}
