package cbor

import (
	"encoding"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"postbus.example/codec"
	"postbus.example/internal/fields"
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
		for _, f := range rules.Of(t) { // hidden fields may be of any type
			if err := check(f.Type, path+f.Path, seen); err != nil {
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

// rules are the library's, which differs from encoding/json in more than its tag: any name will do, any tag makes a
// field tagged, even one without a name, and of a struct that is embedded twice at one level nothing is seen.
var rules = fields.Rules{Tag: readTag, DropTwins: true}

func readTag(tag reflect.StructTag) (key string, tagged, ok bool) {
	value := tag.Get("cbor")
	if value == "" {
		value = tag.Get("json")
	}
	key, options, _ := strings.Cut(value, ",")
	if strings.Contains(options, "keyasint") {
		if n, err := strconv.Atoi(key); err == nil {
			key = "\x00" + strconv.Itoa(n) // 1, +1 and 01 are one key, and none of them is the text "1"
		}
	}
	return key, value != "", value != "-"
}
