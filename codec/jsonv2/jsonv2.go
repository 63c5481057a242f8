// Package jsonv2 is the codec of JSON with a quicker decoder: the engine of encoding/json/v2, told to decode as
// encoding/json does.
//
//	bus.Connect(url, bus.WithCodec(jsonv2.JSON))
//
// It brings one module along, github.com/go-json-experiment/json, which has no dependencies, no unsafe code, and is the
// mirror of the standard library's own engine for Go versions that don't have it turned on. In a build that has
// (GOEXPERIMENT=jsonv2), [codec.JSON] is as quick, and this package is not needed.
package jsonv2

import (
	"reflect"

	json "github.com/go-json-experiment/json/v1"

	"postbus.example/codec"
)

// JSON is [codec.JSON] with another decoder for plain messages: of structs, slices, maps, pointers, strings, numbers and
// booleans. They decode in about half the time, long strings in a third of it; encoding is the same.
//
// A message type that holds anything else, at any depth, is left to codec.JSON whole: an interface, a type that decodes
// itself (a [time.Time] and a json.RawMessage, too), a json.Number, an embedded field, a tag with an option other than
// omitempty and omitzero, and keys that differ in case only. These are what the two engines see differently, or where
// the new one is no quicker.
//
// What a message becomes is the same with both, be there duplicate keys, keys in another case, broken UTF-8, or
// values in the message already. So are errors: bad data is read again by codec.JSON, for its words and offsets.
//
// JSON implements [codec.TypeChecker] and is safe for concurrent use.
var JSON codec.Codec = jsonCodec{codec.JSON}

// jsonCodec does with the codec in it all but decoding.
type jsonCodec struct{ codec.Codec }

func (c jsonCodec) Decode(data []byte, v any) error {
	if len(data) == 0 || !plainMessage(v) {
		return c.Codec.Decode(data, v)
	}
	err := json.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	if worded := c.Codec.Decode(data, reflect.New(reflect.TypeOf(v).Elem()).Interface()); worded != nil {
		return worded
	}
	return &codec.DecodeError{Offset: -1, Problem: "JSON of the wrong form", Cause: err} // what was in v before is at fault
}

func (c jsonCodec) CheckType(t reflect.Type) error { return c.Codec.(codec.TypeChecker).CheckType(t) }
