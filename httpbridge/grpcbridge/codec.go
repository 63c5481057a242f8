package grpcbridge

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"postbus.example/codec"
)

// message is the bytes of one message, of the type they came with.
type message struct{ codec.Payload }

// passThrough is a codec that leaves bytes as they are. Its name is the end of a content type: application/grpc+proto.
type passThrough struct{ name string }

func (c passThrough) Name() string { return c.name }

// Marshal gives the bytes of a message. Of Protocol Buffers it knows one type, which carries an error's details.
func (c passThrough) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *message:
		return m.Data, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("%T is no message", v)
}

// Unmarshal copies, since the bytes are the caller's again afterwards.
func (c passThrough) Unmarshal(data []byte, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	m.MediaType, m.Data = "application/"+c.name, bytes.Clone(data)
	return nil
}
