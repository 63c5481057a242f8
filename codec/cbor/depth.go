package cbor

import (
	"errors"
	"reflect"
	"sync"
)

var errDepth = errors.New("cbor: the message is nested too deep, or contains itself")

// checkDepth refuses cycles, and with them what Decode would refuse for its depth. It is here because the library
// follows a cycle until the stack is full, which no recover can stop. Values of types that end by themselves are not
// looked at, and so not counted.
func checkDepth(v any) error {
	// A level is kept for the tag of a time.Time at the end; pointers and interfaces are no levels, but can be cycles.
	return depth(reflect.ValueOf(v), maxLevels-1, 4*maxLevels)
}

func depth(v reflect.Value, levels, steps int) error {
	if levels < 0 || steps < 0 {
		return errDepth
	}
	if !v.IsValid() || !endless(v.Type()) {
		return nil
	}
	steps--
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return depth(v.Elem(), levels, steps)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := depth(v.Index(i), levels-1, steps); err != nil {
				return err
			}
		}
	case reflect.Map:
		return mapDepth(v, levels-1, steps)
	case reflect.Struct:
		return structDepth(v, levels-1, steps)
	}
	return nil
}

func mapDepth(v reflect.Value, levels, steps int) error {
	for it := v.MapRange(); it.Next(); {
		if err := depth(it.Key(), levels, steps); err != nil {
			return err
		}
		if err := depth(it.Value(), levels, steps); err != nil {
			return err
		}
	}
	return nil
}

func structDepth(v reflect.Value, levels, steps int) error {
	for i := range v.NumField() {
		if !rules.Sees(v.Type().Field(i)) {
			continue
		}
		if err := depth(v.Field(i), levels, steps); err != nil {
			return err
		}
	}
	return nil
}

var known sync.Map // reflect.Type to whether it is endless

// endless reports whether values of t may be nested without end: by recursion, or through an interface.
func endless(t reflect.Type) bool {
	if is, ok := known.Load(t); ok {
		return is.(bool)
	}
	is := reaches(t, map[reflect.Type]bool{})
	known.Store(t, is)
	return is
}

// reaches walks the types below t. Above holds those on the way; a type done with no cycle found stays in it as false.
func reaches(t reflect.Type, above map[reflect.Type]bool) bool {
	if on, seen := above[t]; seen {
		return on
	}
	if encodesItself(t) {
		return false
	}
	above[t] = true
	defer func() { above[t] = false }()
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return reaches(t.Elem(), above)
	case reflect.Map:
		return reaches(t.Key(), above) || reaches(t.Elem(), above)
	case reflect.Struct:
		for i := range t.NumField() {
			if rules.Sees(t.Field(i)) && reaches(t.Field(i).Type, above) {
				return true
			}
		}
	}
	return false
}
