package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"postbus.example/endpoint"
)

// identity tells calls of one handler apart: a hash that nobody can make two requests collide in, since a reply to the one
// would be shown to the other.
type identity [sha256.Size]byte

// keyFunc says what identifies a call; "" means that it is like no other.
type keyFunc func(context.Context, *endpoint.Call) string

// identify reports false for a call that shares with none. Subject, media type and the instance it is directed to always
// count; the rest is the key's business or, without one, that of the body and of the headers: those named, or all if
// names is nil.
func identify(ctx context.Context, c *endpoint.Call, key keyFunc, names []string) (id identity, ok bool) {
	body, mediaType, err := c.Encoded()
	if err != nil {
		return id, false
	}
	var room [512]byte
	b := part(room[:0], c.Subject)
	b = part(b, mediaType)
	b = part(b, endpoint.InstanceFrom(ctx))
	if key != nil {
		k := key(ctx, c)
		return sha256.Sum256(part(b, k)), k != ""
	}
	if names == nil && c.Header.Len() > 0 {
		names = headerNames(&c.Header)
	}
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		values := c.Header.Values(name)
		b = part(b, name)
		b = binary.AppendUvarint(b, uint64(len(values)))
		for _, v := range values {
			b = part(b, v)
		}
	}
	if len(b)+len(body) <= len(room) {
		return sha256.Sum256(append(b, body...)), true
	}
	h := sha256.New()
	h.Write(b)
	h.Write(body)
	return identity(h.Sum(nil)), true
}

// part appends a string so that no two lists of parts look the same.
func part(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// headerNames returns the names in a header, lower-cased and in order: a broker keeps neither. A trace is everybody's own and
// does not count.
func headerNames(h *endpoint.Header) []string {
	names := make([]string, 0, h.Len())
	for name := range h.All() {
		name = strings.ToLower(name)
		switch name {
		case "traceparent", "tracestate", "baggage":
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
