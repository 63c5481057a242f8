package endpoint

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Detail is a machine-readable part of an error: a type name and bytes. For Go values (see [Error.With]) the bytes are
// JSON; for protobuf messages the binary form, under the message's full name, as Connect has it.
type Detail struct {
	Type  string
	Value []byte
}

// MaxDetails is how many details of an error cross, the first ones; see [Crossing]. A form with more faults than that
// should list them in one detail.
const MaxDetails = 80

// With returns a copy of e with more details. A Detail is taken as it is; any other Go value becomes JSON under its wire
// name, which is its package and type name ("billing.Quota") or what its method DetailName() string returns.
// A value that JSON can't encode becomes a detail of its name without a value.
func (e *Error) With(details ...any) *Error {
	n := *e
	n.Details = n.Details[:len(n.Details):len(n.Details)]
	for _, d := range details {
		if d, ok := d.(Detail); ok {
			n.Details = append(n.Details, d)
			continue
		}
		if d == nil {
			continue
		}
		value, err := json.Marshal(d)
		if err != nil {
			value = nil
		}
		n.Details = append(n.Details, Detail{Type: detailName(reflect.TypeOf(d)), Value: value})
	}
	return &n
}

// DetailOf finds the first detail of type T in err's chain and decodes it.
func DetailOf[T any](err error) (T, bool) {
	var zero T
	t := reflect.TypeFor[T]()
	for e, ok := find(err); ok; e, ok = find(e.cause) {
		for _, d := range e.Details {
			if d, is := any(d).(T); is {
				return d, true
			}
			if d.Type != detailName(t) {
				continue
			}
			var v T
			if json.Unmarshal(d.Value, &v) == nil {
				return v, true
			}
		}
	}
	return zero, false
}

func detailName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n, ok := reflect.TypeAssert[interface{ DetailName() string }](reflect.New(t)); ok {
		return n.DetailName()
	}
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, t.String())
}

// errorJSON is Connect's error JSON, https://connectrpc.com/docs/protocol#error-end-stream: what stands in the body of
// an error reply on the bus and over HTTP.
type errorJSON struct {
	Code    string       `json:"code"`
	Message string       `json:"message,omitempty"`
	Details []detailJSON `json:"details,omitempty"`
}

type detailJSON struct {
	Type  string          `json:"type"`
	Value string          `json:"value"`
	Debug json.RawMessage `json:"debug,omitempty"`
}

// MarshalJSON writes Connect's error JSON. The cause, the outcome and the reason are not part of it.
func (e *Error) MarshalJSON() ([]byte, error) {
	j := errorJSON{Code: e.Code.String(), Message: strings.ToValidUTF8(e.Message, "\uFFFD")}
	for _, d := range e.Details {
		dj := detailJSON{Type: d.Type, Value: base64.RawStdEncoding.EncodeToString(d.Value)}
		if utf8.Valid(d.Value) && json.Valid(d.Value) {
			dj.Debug = d.Value
		}
		j.Details = append(j.Details, dj)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(j); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// UnmarshalJSON reads Connect's error JSON: padded base64 is accepted as well, an unknown code becomes Unknown.
func (e *Error) UnmarshalJSON(data []byte) error {
	var j errorJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	if j.Code == "" {
		return errors.New("endpoint: error JSON without a code")
	}
	*e = Error{Message: j.Message}
	e.Code, _ = ParseCode(j.Code)
	if e.Code == OK {
		e.Code = Unknown
	}
	for _, d := range j.Details {
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(d.Value, "="))
		if err != nil {
			return fmt.Errorf("endpoint: detail %q: %w", d.Type, err)
		}
		if len(value) == 0 {
			value = nil
		}
		e.Details = append(e.Details, Detail{Type: d.Type, Value: value})
	}
	return nil
}
