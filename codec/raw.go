package codec

import (
	"fmt"
	"reflect"
)

// Raw passes bytes through: its messages are *[]byte. Its media type is application/octet-stream. Every body is
// valid, the empty one too, and any other message is an error. Raw implements [TypeChecker].
// A decoded message shares the memory it was decoded from, which no transport reuses.
var Raw Codec = rawCodec{}

const rawName = "application/octet-stream"

type rawCodec struct{}

func (rawCodec) Name() string { return rawName }

func (rawCodec) Append(dst []byte, v any) ([]byte, error) {
	if p, ok := v.(*[]byte); ok && p != nil {
		return append(dst, *p...), nil
	}
	return dst, fmt.Errorf("codec: raw messages are *[]byte, not %T", v)
}

func (rawCodec) Decode(data []byte, v any) error {
	p, ok := v.(*[]byte)
	if !ok || p == nil {
		return fmt.Errorf("codec: raw messages are *[]byte, not %T", v)
	}
	*p = data[:len(data):len(data)]
	return nil
}

func (rawCodec) CheckType(t reflect.Type) error {
	if elem := deref(t); elem != reflect.TypeFor[[]byte]() {
		return &TypeError{Codec: rawName, Type: t, Path: typeName(t), Reason: "raw messages are []byte"}
	}
	return nil
}

// deref returns what a pointer type points to, and any other type, nil included, as it is.
func deref(t reflect.Type) reflect.Type {
	if t != nil && t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// typeName is what a path in a TypeError starts with: short for named types.
func typeName(t reflect.Type) string {
	switch t = deref(t); {
	case t == nil:
		return "nil"
	case t.Name() != "":
		return t.Name()
	}
	return t.String()
}
