package httpbridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postbus.example/codec"
	"postbus.example/endpoint"
)

// member is one member of a JSON object. Its value is kept as it was written.
type member struct {
	name  string
	value json.RawMessage
}

var errNotObject = errors.New("it is not a JSON object")

// membersOf decodes one level of a JSON object, in the order in which it is written. A name that occurs twice is an error.
func membersOf(data []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil {
		return nil, jsonFault(err, d)
	} else if first != json.Delim('{') {
		return nil, errNotObject
	}
	var all []member
	seen := map[string]bool{} // is used from many members on
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, jsonFault(err, d)
		}
		m := member{name: name.(string)} // nothing else is a name: the decoder refuses it
		if err := d.Decode(&m.value); err != nil {
			return nil, jsonFault(err, d)
		}
		if twice(all, seen, m.name) {
			return nil, fmt.Errorf("it has %.80q twice", m.name)
		}
		all = append(all, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonFault(err, d)
	}
	if rest := bytes.TrimLeft(data[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, fmt.Errorf("malformed JSON: there is more after the object (at offset %d)", len(data)-len(rest))
	}
	return all, nil
}

// unicodeFault says where JSON is not UTF-8 (RFC 8259, 8.1). Decoders would replace what is wrong, each in its way, and an
// endpoint would work on what nobody sent. Whether it is JSON at all, its codec finds out.
func unicodeFault(data []byte) error {
	if utf8.Valid(data) {
		return nil
	}
	at := 0
	for at < len(data) {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return fmt.Errorf("malformed JSON: it is not UTF-8 (at offset %d)", at)
}

// textual refuses a message of JSON that is not UTF-8.
func textual(p *codec.Payload) error {
	if p.MediaType != jsonType {
		return nil
	}
	if err := unicodeFault(p.Data); err != nil {
		return endpoint.InvalidArgument.New(err.Error()).WithReason(endpoint.ReasonDecode).WithOutcome(endpoint.NotSent)
	}
	return nil
}

// twice reports whether a name was there before, and notes it.
func twice(all []member, seen map[string]bool, name string) bool {
	const few = 8
	if len(all) < few {
		return slices.ContainsFunc(all, func(m member) bool { return m.name == name })
	}
	if len(seen) == 0 {
		for _, m := range all {
			seen[m.name] = true
		}
	}
	if seen[name] {
		return true
	}
	seen[name] = true
	return false
}

// jsonFault says where JSON is broken.
func jsonFault(err error, d *json.Decoder) error {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("malformed JSON: %w (at offset %d)", err, s.Offset)
	}
	return fmt.Errorf("malformed JSON: it ends too early (at offset %d)", d.InputOffset())
}

// writeObject is the opposite of membersOf.
func writeObject(members []member) []byte {
	size := 2
	for _, m := range members {
		size += len(m.name) + len(m.value) + 4
	}
	out := append(make([]byte, 0, size), '{')
	for i, m := range members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, quote(m.name)...)
		out = append(out, ':')
		out = append(out, m.value...)
	}
	return append(out, '}')
}

// quote makes valid UTF-8 a JSON string.
func quote(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) //nolint:errchkjson // a string always has JSON
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// fold gives names that encoding/json takes for the same field one form.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for { // the smallest of those that differ by case alone
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
