package httpbridge

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"

	"postbus.example/endpoint"
)

// The envelope that Connect puts around each message of a stream (https://connectrpc.com/docs/protocol#streaming-rpcs):
//
//	0      1             5
//	+------+-------------+---------------------- -
//	| flags|  length, BE | length bytes
//	+------+-------------+---------------------- -
const (
	envelopeHead = 5

	flagCompressed = 1 // the message is, by itself
	flagEnd        = 2 // the last one: JSON with the error and the metadata, from servers only
)

// envelopes reads the messages of a request. What it reads from must not say io.ErrUnexpectedEOF: see uplink.Read.
type envelopes struct {
	from    io.Reader
	limit   int  // of a message, compressed or not
	gzipped bool // what flagCompressed means; without it, it must not be set
	head    [envelopeHead]byte
	n       int // messages so far
}

// next returns a message in memory of its own, io.EOF at the end of the body.
func (e *envelopes) next() ([]byte, error) {
	switch _, err := io.ReadFull(e.from, e.head[:]); {
	case err == io.EOF:
		return nil, err
	case err == io.ErrUnexpectedEOF:
		return nil, endpoint.InvalidArgument.Errorf("message %d: the body ends within the head of its envelope", e.n)
	case err != nil:
		return nil, err
	}
	flags, size := e.head[0], int64(binary.BigEndian.Uint32(e.head[1:]))
	switch {
	case flags&^flagCompressed != 0:
		return nil, endpoint.InvalidArgument.Errorf("message %d: its envelope has the flags %#02x, of which a request may have %#02x only",
			e.n, flags, flagCompressed)
	case flags&flagCompressed != 0 && !e.gzipped:
		return nil, refuse(http.StatusBadRequest,
			endpoint.Internal.Errorf("message %d is compressed, and Connect-Content-Encoding does not say how", e.n))
	case size > int64(e.limit):
		return nil, endpoint.ResourceExhausted.Errorf("message %d has %d bytes, at most %d are taken", e.n, size, e.limit).
			WithReason(endpoint.ReasonRequestTooLarge)
	}
	data, err := e.body(size)
	if err == nil && flags&flagCompressed != 0 && size > 0 {
		data, err = inflate(data, e.limit)
	}
	e.n++
	return data, err
}

// body reads so many bytes, and sets memory aside as they come.
func (e *envelopes) body(size int64) ([]byte, error) {
	if size <= grant {
		data := make([]byte, size)
		n, err := io.ReadFull(e.from, data)
		return data, e.cut(int64(n), size, err)
	}
	var buf bytes.Buffer
	n, err := io.CopyN(&buf, e.from, size)
	return buf.Bytes(), e.cut(n, size, err)
}

func (e *envelopes) cut(n, size int64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // themselves: the body has ended well, or so it says
		return endpoint.InvalidArgument.Errorf("message %d: the body ends after %d of its %d bytes", e.n, n, size)
	}
	return err
}

// putHead writes the head of an envelope.
func putHead(head *[envelopeHead]byte, flags byte, size int) []byte {
	head[0] = flags
	binary.BigEndian.PutUint32(head[1:], uint32(size))
	return head[:]
}
