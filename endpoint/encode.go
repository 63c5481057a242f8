package endpoint

import (
	"errors"
	"fmt"
	"sync"

	"postbus.example/codec"
)

// Buffers up to smallBuffer are always kept for reuse. Larger ones, up to largeBuffer, are kept only after a message
// that filled a quarter of them: then more such are to be expected, while a burst of large messages leaves nothing behind
// that small ones would keep in memory for good.
//
// A new one is small: a call in flight holds its buffer, so what it does not fill is paid for by each of them.
const (
	newBuffer   = 128
	smallBuffer = 64 << 10
	largeBuffer = 2 << 20
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, newBuffer); return &b }}

func putBuffer(b *[]byte) {
	if n := cap(*b); n <= smallBuffer || n <= largeBuffer && len(*b) >= n/4 {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// encode turns a message into bytes, in pooled memory where the codec writes: buf is nil for what needs no copy.
// A codec's panic is an error, with a [*PanicError] in its chain.
func encode(c codec.Codec, m any) (body []byte, mediaType string, buf *[]byte, err error) {
	if written(c, m) {
		buf = buffers.Get().(*[]byte)
		if err = write(buf, c, m); err != nil {
			return nil, "", nil, err
		}
		return *buf, c.Name(), buf, nil
	}
	body, mediaType, err = carried(c, m)
	return body, mediaType, nil, err
}

// written reports whether a message is written by its codec: it is no bytes as they are.
func written(c codec.Codec, m any) bool {
	switch m.(type) {
	case *codec.Payload:
		return false
	case *[]byte:
		return c != nil && c != codec.Raw
	}
	return c != nil
}

// write has a codec write a message into a pooled buffer, which it gives back if that fails.
func write(buf *[]byte, c codec.Codec, m any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p) // the buffer is left to the collector
		}
	}()
	body, err := c.Append((*buf)[:0], m)
	if err != nil {
		putBuffer(buf)
		return err
	}
	*buf = body
	return nil
}

// carried returns the bytes of a message that is bytes already.
func carried(c codec.Codec, m any) (body []byte, mediaType string, err error) {
	defer func() {
		if p := recover(); p != nil {
			body, mediaType, err = nil, "", newPanicError(p)
		}
	}()
	if p, ok := m.(*codec.Payload); ok {
		if p.MediaType == "" && c != nil {
			return p.Data, c.Name(), nil
		}
		return p.Data, p.MediaType, nil
	}
	if p, ok := m.(*[]byte); ok && c != nil {
		return *p, c.Name(), nil
	}
	return nil, "", fmt.Errorf("no codec for %T", m)
}

// decode is the reverse of encode.
func decode(c codec.Codec, mediaType string, body []byte, m any) (err error) {
	if p, ok := m.(*codec.Payload); ok {
		p.MediaType, p.Data = mediaType, body
		return nil
	}
	if c == nil {
		return fmt.Errorf("no codec for %.80q", mediaType)
	}
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p)
		}
	}()
	return c.Decode(body, m)
}

// panicOr returns the reason of what failed: panic, or the given one.
func panicOr(err error, reason string) string {
	if _, ok := errors.AsType[*PanicError](err); ok {
		return ReasonPanic
	}
	return reason
}

// encodeFault is the error of a message that can't be encoded; a panic is internal, whoever's. All it says is in the cause,
// which stays on this side.
func encodeFault(code Code, err error, what string, m any) *Error {
	reason := panicOr(err, ReasonEncode)
	if reason == ReasonPanic {
		code = Internal
	}
	return code.Wrap(fmt.Errorf("the %s %T can't be encoded: %w", what, m, err), "").WithReason(reason)
}

// decodeFault is what a peer is told of a request that can't be decoded: the codec's words if they are meant for it.
func decodeFault(err error, mediaType string) *Error {
	if p, ok := errors.AsType[*PanicError](err); ok {
		return &Error{Code: Internal, reason: ReasonPanic, cause: p}
	}
	msg := fmt.Sprintf("malformed request of type %.80q", mediaType)
	if d, ok := errors.AsType[*codec.DecodeError](err); ok {
		msg = "malformed request: " + d.Error()
	}
	return InvalidArgument.Wrap(err, msg).WithReason(ReasonDecode)
}
