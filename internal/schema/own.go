package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Describer is a type that knows its own schema, usually because it encodes itself or is an enumeration:
//
//	func (Color) JSONSchema() json.RawMessage { return json.RawMessage(`{"enum":["red","green"]}`) }
//
// The method may stand on the type or on its pointer and is called on a new zero value. The schema must hold for
// whatever the type encodes to at an addressable place; null for a nil pointer is added to it. It must be one
// JSON object or boolean, without references to "#…" unless it has an $id, for it becomes part of a larger document.
//
// The method is not asked where its answer would be false: for a field with the option ,string, for a value in a map
// when only the type's pointer has the encoding method, and for a struct that has the method from an embedded
// field, which describes the part and not the whole.
type Describer interface {
	JSONSchema() json.RawMessage
}

var describer = reflect.TypeFor[Describer]()

// own returns the schema that the type itself gives, or nil. It stands in $defs, for such types are used in many
// places, and generated clients need a name for an enumeration.
func (b *builder) own(p place, m manner) *node {
	if p.quoted && m == byKind || m != mannerOf(p.typ, true) || !describes(p.typ) {
		return nil
	}
	k := key{p.typ, true}
	if d := b.defs[k]; d != nil {
		return d.refer()
	}
	raw, err := ask(p.typ)
	for _, part := range describingParts(p.typ) {
		// A method can't be told from a promoted one but by what it says, or by its panic at a nil embedded pointer.
		if said, partErr := ask(part); err != nil || partErr == nil && bytes.Equal(raw, said) {
			return nil
		}
	}
	if err == nil {
		raw, err = embeddable(raw)
	}
	if err != nil {
		return b.fault(p, "JSONSchema: "+err.Error())
	}
	if k == b.root {
		return &node{own: raw}
	}
	d := &def{key: k, node: &node{own: raw}}
	b.defs[k] = d
	b.kept = append(b.kept, d)
	return d.refer()
}

func describes(t reflect.Type) bool {
	return t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(describer)
}

// describingParts returns the embedded types of a struct that could lend it their JSONSchema method.
func describingParts(t reflect.Type) (parts []reflect.Type) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		part := sf.Type
		if part.Kind() == reflect.Pointer {
			part = part.Elem()
		}
		if sf.Anonymous && (describes(part) || part.Implements(describer)) {
			parts = append(parts, part)
		}
	}
	return parts
}

func ask(t reflect.Type) (raw json.RawMessage, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	d, ok := reflect.TypeAssert[Describer](reflect.New(t))
	if !ok {
		return nil, errors.New("an interface has no schema")
	}
	return d.JSONSchema(), nil
}

// embeddable returns a schema in compact form, or why it can't be a part of another.
func embeddable(raw json.RawMessage) (json.RawMessage, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	switch s := v.(type) {
	case bool:
	case map[string]any:
		if _, ok := s["$id"].(string); !ok && refersToRoot(s) {
			return nil, errors.New("it refers to \"#…\", which is another document once it is embedded")
		}
	default:
		return nil, errors.New("it must be an object or a boolean")
	}
	return json.Marshal(raw)
}

func refersToRoot(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			ref, _ := member.(string)
			if (name == "$ref" || name == "$dynamicRef") && strings.HasPrefix(ref, "#") || refersToRoot(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, refersToRoot)
	}
	return false
}
