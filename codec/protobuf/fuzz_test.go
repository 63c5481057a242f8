package protobuf_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"postbus.example/codec"
	"postbus.example/codec/protobuf"
)

// FuzzDecode holds that no input panics, that errors are DecodeErrors, and that what was decoded can be sent on.
func FuzzDecode(f *testing.F) {
	for _, c := range []codec.Codec{protobuf.Binary, protobuf.JSON} {
		s, _ := structpb.NewStruct(map[string]any{"a": 1, "b": []any{"x", nil, true}})
		data, err := c.Append(nil, s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Add([]byte(`{"a":{"a":{"a":`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range []codec.Codec{protobuf.Binary, protobuf.JSON} {
			for _, m := range []proto.Message{&structpb.Struct{}, &wrapperspb.BytesValue{}, &wrapperspb.Int64Value{}} {
				if err := c.Decode(data, m); err != nil {
					if _, ok := errors.AsType[*codec.DecodeError](err); !ok {
						t.Fatalf("%s: %T: %v", c.Name(), err, err)
					}
					continue
				}
				again, err := protobuf.Binary.Append(nil, m)
				if err != nil {
					t.Fatalf("%s: decoded, but can't be encoded: %v", c.Name(), err)
				}
				copied := m.ProtoReflect().New().Interface()
				if err := protobuf.Binary.Decode(again, copied); err != nil {
					t.Fatalf("%s: %v", c.Name(), err)
				}
			}
		}
	})
}
