// Package protobuf holds the codecs of Protocol Buffers: Binary and JSON. Messages are proto.Message values, which
// generated types are as pointers: *pb.Order.
//
// A service that accepts both answers protobuf and JSON callers at once:
//
//	bus.Connect(url, bus.WithCodec(protobuf.Binary), bus.WithCodecs(protobuf.JSON))
package protobuf

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"postbus.example/codec"
)

// Binary is the Protocol Buffers wire format. Its media type is application/proto.
//
// An empty body is a valid message without fields set. Decode resets the message first, keeps fields it doesn't
// know, and copies what it keeps. Messages other than a proto.Message, or a pointer to one, are errors, nil ones too.
// Bad data is a [*codec.DecodeError]. Binary implements [codec.TypeChecker] and is safe for concurrent use.
//
// Equal messages may have different encodings, as the format has no canonical form: don't compare or hash them.
var Binary codec.Codec = binaryCodec{}

const binaryName = "application/proto"

type binaryCodec struct{}

func (binaryCodec) Name() string { return binaryName }

func (binaryCodec) Append(dst []byte, v any) ([]byte, error) {
	m, err := message(v, false)
	if err != nil {
		return dst, err
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, m)
}

func (binaryCodec) Decode(data []byte, v any) error {
	m, err := message(v, true)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return &codec.DecodeError{Offset: -1, Problem: "malformed protobuf: " + text(err), Cause: err}
	}
	return nil
}

func (binaryCodec) CheckType(t reflect.Type) error {
	if isMessage(t) {
		return nil
	}
	return refuse(binaryName, t)
}

// message finds the proto.Message in v: v itself, or what it points to. With alloc it fills in a missing one.
func message(v any, alloc bool) (proto.Message, error) {
	m, ok := v.(proto.Message)
	if !ok {
		p := reflect.ValueOf(v)
		if p.Kind() != reflect.Pointer || p.IsNil() || p.Elem().Kind() != reflect.Pointer || !p.Elem().Type().Implements(protoMessage) {
			return nil, fmt.Errorf("protobuf: %T is not a proto.Message", v)
		}
		if p = p.Elem(); p.IsNil() && alloc {
			p.Set(reflect.New(p.Type().Elem()))
		}
		m = p.Interface().(proto.Message)
	}
	if p := reflect.ValueOf(m); p.Kind() == reflect.Pointer && p.IsNil() {
		return nil, fmt.Errorf("protobuf: the %T is nil", m)
	}
	return m, nil
}
