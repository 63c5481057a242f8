package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"sync"
)

// JSON is encoding/json: the same tags, the same case-insensitive keys, the same bytes. Its media type is
// application/json. An empty body is an error unless the message is a struct without fields.
//
// Decode merges into the message as [json.Unmarshal] does. Bad data is a [*DecodeError]; one that an UnmarshalJSON
// returns reaches the peer as it is, any other error of an UnmarshalJSON becomes one without its text. JSON also
// implements [TypeChecker]. It passes panics of MarshalJSON and UnmarshalJSON on, and stays usable.
var JSON Codec = new(jsonCodec)

const jsonName = "application/json"

// jsonCodec has its methods on the pointer, as an interface has them: otherwise there is a function more on the stack of each.
type jsonCodec struct{}

func (*jsonCodec) Name() string { return jsonName }

// jsonWriter is an encoder that appends, so that a message costs no copy of its own.
type jsonWriter struct {
	buf []byte
	enc *json.Encoder
}

// Write leaves out the newline that Encoder puts after a value, so that a buffer of the right size is not outgrown.
func (w *jsonWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, bytes.TrimSuffix(p, newline)...)
	return len(p), nil
}

var newline = []byte{'\n'}

var jsonWriters = sync.Pool{New: func() any {
	w := new(jsonWriter)
	w.enc = json.NewEncoder(w)
	return w
}}

func (*jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	w := jsonWriters.Get().(*jsonWriter) // a MarshalJSON that panics takes it along: no defer, nothing half-used returns
	w.buf = dst
	err := w.enc.Encode(v)
	out := w.buf
	w.buf = nil
	jsonWriters.Put(w)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (*jsonCodec) Decode(data []byte, v any) error {
	if len(data) == 0 {
		if t := reflect.TypeOf(v); t != nil && deref(t).Kind() == reflect.Struct && deref(t).NumField() == 0 {
			return nil
		}
		return &DecodeError{Offset: -1, Problem: "the body is empty, want JSON"}
	}
	if err := unmarshal(data, v); err != nil {
		return jsonError(err)
	}
	return nil
}
