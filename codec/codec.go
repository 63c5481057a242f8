// Package codec turns messages into bytes and back: Append(dst, v), Decode(data, v).
//
// It is the ground floor of the module and imports the standard library only. A codec is a value, there is no
// registry: a transport holds a [Set] of those it accepts, chosen by media type. [JSON] and [Raw] live here; the
// leaves codec/protobuf, codec/cbor and codec/jsonv2 bring their libraries with them, and codec/codectest proves a codec
// of your own.
package codec

import (
	"fmt"
	"reflect"
	"strings"
)

// Codec encodes and decodes messages of one media type. Messages are always pointers.
//
// A Codec MUST be safe for concurrent use, and MUST NOT panic on any input bytes.
type Codec interface {
	// Name is the media type, lower case and without parameters, such as "application/json".
	// It stands on the wire, so it must never change.
	Name() string

	// Append appends the encoding of v to dst and returns the extended slice, as append does.
	// It MUST NOT change v or the first len(dst) bytes, and MUST NOT retain dst.
	// With an error, the returned slice is ignored.
	Append(dst []byte, v any) ([]byte, error)

	// Decode stores what data holds in the message that v points to. It MUST NOT retain data: transports may
	// reuse it. (Raw and Payload are the exception transports know: what they are handed is never reused.)
	// Bad data is a [*DecodeError], whose text may be shown to the peer that sent it.
	Decode(data []byte, v any) error
}

// TypeChecker is what a codec may have besides: it says before any call whether values of a type can be encoded,
// nested ones too. Transports refuse to serve what fails it. A TypeChecker MUST be safe for concurrent use and
// MUST NOT panic, nil included.
type TypeChecker interface {
	// CheckType returns a [*TypeError] if messages of type t can't be encoded. A message type and a pointer to it
	// mean the same. It promises nothing about values behind interfaces, which are known only when they are encoded.
	CheckType(t reflect.Type) error
}

// DecodeError says what is wrong with received data, in words that are safe for the peer that sent it: names of its
// own fields, its own input, clipped, and never a name of a Go type.
type DecodeError struct {
	Field   string // path of the offending field, "" if unknown
	Offset  int64  // bytes read before the error, -1 if unknown
	Problem string // what was found or expected
	Cause   error  // for logs on this side, may be nil; never part of Error()
}

// Error names the problem, the field and the offset.
func (e *DecodeError) Error() string {
	s := e.Problem
	if e.Field != "" {
		s = fmt.Sprintf("field %q: %s", e.Field, s)
	}
	if e.Offset >= 0 {
		s = fmt.Sprintf("%s (at offset %d)", s, e.Offset)
	}
	return s
}

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Cause }

// TypeError says that a type can't be encoded, and where in it the trouble lies.
type TypeError struct {
	Codec  string       // name of the codec
	Type   reflect.Type // the type that can't be encoded, nil if the message itself has none
	Path   string       // the way to it from the message type, such as "Order.Lines[].Done"
	Reason string
}

// Error names the codec, the path, the type and the reason.
func (e *TypeError) Error() string {
	return fmt.Sprintf("%s can't encode %s of type %v: %s", e.Codec, e.Path, e.Type, e.Reason)
}

// Payload is a message that is encoded already: it passes every codec untouched, is sent with its media type and
// received with the peer's. Bridges and proxies are callers of *Payload. An empty MediaType means the default codec's.
// Data handed to a call must not change before the call ended; received Data belongs to the receiver.
type Payload struct {
	MediaType string
	Data      []byte
}

// Set is an ordered set of codecs, chosen by media type; the first is the default. The zero value is empty and
// ready for use. A Set is immutable and safe for concurrent use; copies are cheap and share nothing that changes.
type Set struct{ codecs []Codec }

// NewSet returns a set of cs. Of two codecs with one name the first wins; a nil codec is left out.
func NewSet(cs ...Codec) Set { return Set{}.With(cs...) }

// With returns a set that holds cs after those of s, under the rules of [NewSet]. It leaves s as it is.
func (s Set) With(cs ...Codec) Set {
	out := s.codecs[:len(s.codecs):len(s.codecs)]
	for _, c := range cs {
		if c == nil {
			continue
		}
		if _, dup := (Set{out}).Lookup(c.Name()); !dup {
			out = append(out, c)
		}
	}
	return Set{out}
}

// Default returns the first codec, nil for an empty set.
func (s Set) Default() Codec {
	if len(s.codecs) == 0 {
		return nil
	}
	return s.codecs[0]
}

// Lookup returns the codec for a media type. Parameters ("; charset=utf-8") and case don't matter.
func (s Set) Lookup(mediaType string) (Codec, bool) {
	for _, c := range s.codecs { // a handful at most: a scan beats a map
		if c.Name() == mediaType {
			return c, true
		}
	}
	base := MediaType(mediaType)
	for _, c := range s.codecs {
		if c.Name() == base {
			return c, true
		}
	}
	return nil, false
}

// Names returns the media types in order, as a new slice.
func (s Set) Names() []string {
	names := make([]string, len(s.codecs))
	for i, c := range s.codecs {
		names[i] = c.Name()
	}
	return names
}

// Len returns how many codecs s holds.
func (s Set) Len() int { return len(s.codecs) }

// MediaType returns the bare media type of a Content-Type: lower case, without parameters.
func MediaType(contentType string) string {
	if i := strings.IndexByte(contentType, ';'); i >= 0 {
		contentType = contentType[:i]
	}
	return strings.ToLower(strings.TrimSpace(contentType))
}
