package cbor

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"postbus.example/codec"
)

// decodeError keeps what helps the sender and leaves out names of Go types, which are nobody's business. The library
// knows the place of few errors, so that no offset is given.
func decodeError(err error) error {
	if _, wrong := errors.AsType[*cbor.InvalidUnmarshalError](err); wrong {
		return err // the caller's fault, not the sender's
	}
	if e, ok := errors.AsType[*codec.DecodeError](err); ok {
		return e // written by an UnmarshalCBOR or UnmarshalText for the peer
	}
	out := &codec.DecodeError{Offset: -1, Problem: "CBOR of the wrong form", Cause: err}
	if e, ok := errors.AsType[*cbor.UnmarshalTypeError](err); ok {
		out.Field = field(e.StructFieldName)
		out.Problem = fmt.Sprintf("can't take CBOR %s, want %s", e.CBORType, kind(e.GoType))
		return out
	}
	if e, ok := errors.AsType[*cbor.DupMapKeyError](err); ok {
		out.Problem = fmt.Sprintf("a map has one key twice, again at index %d", e.Index)
		return out
	}
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) { //nolint:errorlint // a wrapped EOF is an UnmarshalCBOR's
		out.Problem = "malformed CBOR: unexpected end of data"
		return out
	}
	if fixed(err) {
		out.Problem = "malformed CBOR: " + strings.TrimPrefix(err.Error(), "cbor: ")
	}
	return out
}

// fixed reports whether the text of an error is made of constants and numbers alone.
func fixed(err error) bool {
	switch err.(type) { //nolint:errorlint // what wraps one has a text of its own
	case *cbor.SyntaxError, *cbor.SemanticError, *cbor.ExtraneousDataError, *cbor.MaxNestedLevelError,
		*cbor.MaxArrayElementsError, *cbor.MaxMapPairsError:
		return true
	}
	return false
}

// field turns the library's "pkg.Type.Name" into the name the sender used: that of the outermost field in trouble.
func field(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }

// kind says in the words of CBOR what was expected, of a Go type known by name only.
func kind(goType string) string {
	t := strings.TrimLeft(goType, "*")
	switch {
	case t == "bool":
		return "a boolean"
	case strings.HasPrefix(t, "int"), strings.HasPrefix(t, "uint"):
		return "an integer that fits " + t
	case strings.HasPrefix(t, "float"):
		return "a number"
	case t == "string":
		return "a text string"
	case t == "[]uint8":
		return "a byte string"
	case strings.HasPrefix(t, "["):
		return "an array"
	case strings.HasPrefix(t, "map["):
		return "a map"
	}
	return "another type"
}
