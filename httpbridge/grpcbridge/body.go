package grpcbridge

import (
	"errors"
	"io"

	"postbus.example/endpoint"
)

// head is what stands in front of each message: flags and the length.
const head = 5

// body is a request's. Its faults are gRPC's, and it gives no more than one message may have: of one that is longer the rest is
// not read only to be thrown away.
type body struct {
	io.ReadCloser

	limit int64 // of a message
	left  int64 // what may still be read for the next one
}

// newBody makes the body of a request of one message, and of what must not follow it.
func newBody(r io.ReadCloser, limit int) *body {
	return &body{ReadCloser: r, limit: int64(limit), left: int64(limit) + 2*head}
}

// next makes room for one message more.
func (b *body) next() { b.left = b.limit + head }

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, failure(endpoint.ResourceExhausted.Errorf("a message has more than %d bytes", b.limit))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if e, ok := errors.AsType[*endpoint.Error](err); ok {
		err = failure(e)
	}
	return n, err
}
