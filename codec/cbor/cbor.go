// Package cbor is the codec of CBOR (RFC 8949), a binary JSON: compact, quick, and plain Go structs as messages.
//
//	bus.Connect(url, bus.WithCodec(codec.JSON), bus.WithCodecs(cbor.CBOR))
package cbor

import (
	"bytes"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"postbus.example/codec"
)

// CBOR encodes plain Go values with github.com/fxamacker/cbor. Its media type is application/cbor.
//
// It follows encoding/json where a struct is concerned: json tags are honoured (cbor tags go before them), keys match
// without case, unknown ones are skipped, and Decode merges into the message. A [time.Time] is text with nanoseconds
// and zone, under tag 0; a TextMarshaler is text; a []byte is a byte string; in an interface, a map is a
// map[string]any. A json.Marshaler is not asked.
//
// Against bombs, data nested deeper than 256 levels, and arrays and maps of more than 131072 elements are refused, and
// so is a claimed length that the data can't hold, before anything is allocated. Duplicate keys are refused, lest two
// readers see two messages. Append refuses what is nested too deep, cycles included. An empty body is an error unless
// the message is a struct without fields. Bad data is a [*codec.DecodeError].
//
// CBOR implements [codec.TypeChecker] and is safe for concurrent use.
var CBOR codec.Codec = cborCodec{}

const (
	name = "application/cbor"

	maxLevels   = 256
	maxElements = 131072
)

var (
	encMode = must(cbor.EncOptions{
		Time:          cbor.TimeRFC3339Nano,
		TimeTag:       cbor.EncTagRequired,
		TextMarshaler: cbor.TextMarshalerTextString,
	}.UserBufferEncMode())

	decMode = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  maxLevels,
		MaxArrayElements: maxElements,
		MaxMapPairs:      maxElements,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
		TextUnmarshaler:  cbor.TextUnmarshalerTextString,
	}.DecMode())
)

// must is for the options above, which are constant: a test would fail, not a program.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type cborCodec struct{}

func (cborCodec) Name() string { return name }

// buffers holds the frames of bytes.Buffer only, never their memory.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (cborCodec) Append(dst []byte, v any) ([]byte, error) {
	if err := checkDepth(v); err != nil {
		return dst, err
	}
	buf := buffers.Get().(*bytes.Buffer) // a marshaler that panics takes it along
	*buf = *bytes.NewBuffer(dst)         // writes go behind dst, in its capacity if that is enough
	err := encMode.MarshalToBuffer(v, buf)
	out := buf.Bytes()
	*buf = bytes.Buffer{}
	buffers.Put(buf)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (cborCodec) Decode(data []byte, v any) error {
	if len(data) == 0 {
		if t := reflect.TypeOf(v); t != nil && deref(t).Kind() == reflect.Struct && deref(t).NumField() == 0 {
			return nil
		}
		if v == nil || reflect.ValueOf(v).Kind() != reflect.Pointer || reflect.ValueOf(v).IsNil() {
			return decMode.Unmarshal(nil, v) // the caller's fault, in the library's words
		}
		return &codec.DecodeError{Offset: -1, Problem: "the body is empty, want CBOR"}
	}
	if err := decMode.Unmarshal(data, v); err != nil {
		return decodeError(err)
	}
	return nil
}

func deref(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
