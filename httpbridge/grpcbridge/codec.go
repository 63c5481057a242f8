package grpcbridge

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// message is the bytes of one message. Their type is told by the content type of the whole request: an empty message passes no
// codec at all.
type message struct{ data []byte }

// passThrough is a codec that leaves bytes as they are. Its name is the end of a content type: application/grpc+proto.
type passThrough struct{ name string }

func (c passThrough) Name() string { return c.name }

// Marshal gives the bytes of a message. Of Protocol Buffers it knows one type, which carries an error's details.
func (c passThrough) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *message:
		return m.data, nil
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
	m.data = bytes.Clone(data)
	return nil
}
