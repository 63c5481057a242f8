package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// jsonError keeps what helps the sender and leaves out names of Go types, which are nobody's business.
func jsonError(err error) error {
	if _, wrong := errors.AsType[*json.InvalidUnmarshalError](err); wrong {
		return fmt.Errorf("codec: %w", err) // the caller's fault, not the sender's
	}
	if e, ok := errors.AsType[*DecodeError](err); ok {
		return e // written by an UnmarshalJSON for the peer
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &DecodeError{Offset: e.Offset, Problem: "malformed JSON: " + e.Error(), Cause: err}
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &DecodeError{
			Field: clip(e.Field), Offset: e.Offset,
			Problem: fmt.Sprintf("can't take JSON %s, want %s", clip(e.Value), jsonKind(e.Type)), Cause: err,
		}
	}
	return &DecodeError{Offset: -1, Problem: "JSON of the wrong form", Cause: err}
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("an integer of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("an unsigned integer of %d bits", t.Bits())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Pointer:
		return jsonKind(t.Elem())
	default:
		return "another type"
	}
}

// clip shortens what the sender chose, so that an error stays smaller than the message it is about.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
