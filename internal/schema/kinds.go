package schema

import (
	"encoding/json"
	"reflect"
)

var numberType = reflect.TypeFor[json.Number]()

// What strconv writes for integers, and the grammar of JSON numbers, which holds for floats and json.Number.
const (
	intPattern    = `^(0|-?[1-9][0-9]*)$`
	uintPattern   = `^(0|[1-9][0-9]*)$`
	numberPattern = `^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`
)

// basic describes booleans, strings and numbers.
func basic(t reflect.Type) *node {
	switch {
	case t == numberType: // an empty one is written as 0
		return &node{Type: typeSet{"number"}}
	case t.Kind() == reflect.Bool:
		return &node{Type: typeSet{"boolean"}}
	case t.Kind() == reflect.String:
		return &node{Type: typeSet{"string"}}
	case isInt(t), isUint(t):
		n := &node{Type: typeSet{"integer"}}
		n.Minimum, n.Maximum = bounds(t.Kind())
		return n
	default:
		return &node{Type: typeSet{"number"}}
	}
}

// bounds returns the limits that a float64 can hold and that do not depend on the machine.
func bounds(k reflect.Kind) (low, high *int64) {
	switch k {
	case reflect.Int8:
		return new(int64(-1 << 7)), new(int64(1<<7 - 1))
	case reflect.Int16:
		return new(int64(-1 << 15)), new(int64(1<<15 - 1))
	case reflect.Int32:
		return new(int64(-1 << 31)), new(int64(1<<31 - 1))
	case reflect.Uint8:
		return new(int64(0)), new(int64(1<<8 - 1))
	case reflect.Uint16:
		return new(int64(0)), new(int64(1<<16 - 1))
	case reflect.Uint32:
		return new(int64(0)), new(int64(1<<32 - 1))
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return new(int64(0)), nil
	default:
		return nil, nil
	}
}

// quoted describes what the option ,string makes of a basic type: JSON in a string. A string is quoted twice.
func quoted(t reflect.Type) *node {
	n := &node{Type: typeSet{"string"}}
	switch {
	case isInt(t):
		n.Pattern = intPattern
	case isUint(t):
		n.Pattern = uintPattern
	case t.Kind() == reflect.Bool:
		n.Pattern = `^(true|false)$`
	case t.Kind() == reflect.String && t != numberType:
		n.Pattern = `^".*"$` // on one line: JSON escapes the others
	default:
		n.Pattern = numberPattern
	}
	return n
}

// isBasic reports whether t is a boolean, string or number: what the option ,string applies to.
func isBasic(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64:
		return true
	default:
		return isInt(t) || isUint(t)
	}
}

func isInt(t reflect.Type) bool { return t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64 }

func isUint(t reflect.Type) bool { return t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uintptr }
