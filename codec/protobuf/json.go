package protobuf

import (
	"encoding/json"
	"errors"
	"reflect"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"postbus.example/codec"
)

// JSON is the JSON mapping of Protocol Buffers for proto messages, and [codec.JSON] for all others. Its media type is
// application/json, so that a set holds either this codec or codec.JSON: give this one first.
//
// For proto messages, keys are accepted in lowerCamelCase and as written in the .proto file, exactly so; keys that
// the message doesn't have are skipped, as encoding/json does. Decode resets the message first. An empty body is an
// error unless the message has no fields. Bad data is a [*codec.DecodeError]. The bytes are stable within one build of
// a program only. JSON implements [codec.TypeChecker] and is safe for concurrent use.
//
// A proto message inside a plain struct is encoded by encoding/json, which knows nothing of the mapping.
var JSON codec.Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Name() string { return codec.JSON.Name() }

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	if !isProto(v) {
		return codec.JSON.Append(dst, v)
	}
	m, err := message(v, false)
	if err != nil {
		return dst, err
	}
	return protojson.MarshalOptions{}.MarshalAppend(dst, m)
}

func (jsonCodec) Decode(data []byte, v any) error {
	if !isProto(v) {
		return codec.JSON.Decode(data, v)
	}
	m, err := message(v, true)
	if err != nil {
		return err
	}
	if len(data) == 0 {
		if m.ProtoReflect().Descriptor().Fields().Len() > 0 {
			return &codec.DecodeError{Offset: -1, Problem: "the body is empty, want JSON"}
		}
		proto.Reset(m)
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return jsonError(data, err)
	}
	return nil
}

func (jsonCodec) CheckType(t reflect.Type) error {
	if isMessage(t) {
		return nil
	}
	if embedsMessage(t) {
		return refuse(codec.JSON.Name(), t)
	}
	return codec.JSON.(codec.TypeChecker).CheckType(t)
}

// isProto reports whether v, or what it points to, is a proto message.
func isProto(v any) bool {
	if _, ok := v.(proto.Message); ok {
		return true
	}
	t := reflect.TypeOf(v)
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Pointer && t.Elem().Implements(protoMessage)
}

// jsonError says what is wrong with data. What is no JSON at all is described in the words and offsets of
// encoding/json, which are the better ones; of protojson's, the place is read out.
func jsonError(data []byte, cause error) error {
	var raw json.RawMessage
	if e, ok := errors.AsType[*codec.DecodeError](codec.JSON.Decode(data, &raw)); ok {
		return e
	}
	offset, problem := place(data, text(cause))
	return &codec.DecodeError{Offset: offset, Problem: problem, Cause: cause}
}
