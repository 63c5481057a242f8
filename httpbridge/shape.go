package httpbridge

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
)

// shape is what a published schema says of a request's fields, as far as plain text can become them. Schemas come from
// whoever serves: what is not understood is left alone.
type shape struct {
	fields []shapeField   // in the order of the schema
	named  map[string]int // the fields
	folded map[string]int // the same, regardless of case: the first of a name
	others *kind          // what additionalProperties say; nil: nothing
	list   bool           // the request itself is an array
}

type shapeField struct {
	name string
	kind *kind
}

// kind is what a value may be. Without types it may be anything.
type kind struct {
	types []string
	items *kind
}

// field finds a field as encoding/json does: by its name as it is, else regardless of case.
func (s *shape) field(name string) (string, *kind) {
	if s == nil {
		return name, nil
	}
	i, there := s.named[name]
	if !there {
		i, there = s.folded[fold(name)]
	}
	if !there {
		return name, s.others
	}
	return s.fields[i].name, s.fields[i].kind
}

// shapeCache keeps the shape of the latest schema.
type shapeCache struct{ latest atomic.Pointer[cachedShape] }

type cachedShape struct {
	schema []byte
	shape  *shape
}

func (c *shapeCache) of(schema json.RawMessage) *shape {
	if len(schema) == 0 {
		return nil
	}
	if l := c.latest.Load(); l != nil && bytes.Equal(l.schema, schema) {
		return l.shape
	}
	s := newShape(schema)
	c.latest.Store(&cachedShape{schema, s})
	return s
}

// newShape returns nil for what is no schema of an object or array.
func newShape(schema json.RawMessage) *shape {
	r := newSchemaReader(schema)
	n := r.resolve(schema)
	s := &shape{named: map[string]int{}, folded: map[string]int{}, list: slices.Equal(r.kind(schema, 0).concrete(), []string{"array"})}
	for i, p := range r.object(r.member(n, "properties")) {
		s.fields = append(s.fields, shapeField{p.name, r.kind(p.value, 0)})
		s.named[p.name] = i
		if _, twice := s.folded[fold(p.name)]; !twice {
			s.folded[fold(p.name)] = i
		}
	}
	if others := r.member(n, "additionalProperties"); len(others) > 0 && others[0] == '{' {
		s.others = r.kind(others, 0)
	}
	return s
}

// concrete are the types besides null.
func (k *kind) concrete() []string {
	return slices.DeleteFunc(slices.Clone(k.types), func(t string) bool { return t == "null" })
}

// schemaReader reads one schema. References lead to $defs of the root, or to the root.
type schemaReader struct {
	root json.RawMessage
	defs map[string]json.RawMessage
	left int // bytes that may still be read
}

func newSchemaReader(root json.RawMessage) *schemaReader {
	r := &schemaReader{root: root, left: maxSchemaRead, defs: map[string]json.RawMessage{}}
	for _, d := range r.object(r.member(root, "$defs")) {
		r.defs[d.name] = d.value
	}
	return r
}

// maxSchemaDepth bounds how deep a schema is followed; fields of a request lie near its root.
const maxSchemaDepth = 8

// maxSchemaRead bounds in bytes what is read of one schema, since each of its parts may lead to others that lead back.
const maxSchemaRead = 4 << 20

func (r *schemaReader) object(data json.RawMessage) []member {
	members, err := membersOf(data)
	if err != nil {
		return nil
	}
	return members
}

func (r *schemaReader) member(data json.RawMessage, name string) json.RawMessage {
	for _, m := range r.object(data) {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// resolve follows $ref, a few times.
func (r *schemaReader) resolve(n json.RawMessage) json.RawMessage {
	for range maxSchemaDepth {
		var ref string
		if json.Unmarshal(r.member(n, "$ref"), &ref) != nil {
			return n
		}
		n = r.at(ref)
	}
	return nil
}

func (r *schemaReader) at(ref string) json.RawMessage {
	if ref == "#" {
		return r.root
	}
	name, ok := strings.CutPrefix(ref, "#/$defs/")
	if !ok {
		return nil
	}
	return r.defs[name]
}

// kind gathers the types that a schema names, in its order.
func (r *schemaReader) kind(n json.RawMessage, depth int) *kind {
	k := &kind{}
	if depth > maxSchemaDepth {
		return k
	}
	n = r.resolve(n)
	if r.left -= len(n); r.left < 0 {
		return k
	}
	var one string
	if t := r.member(n, "type"); json.Unmarshal(t, &one) == nil {
		k.types = []string{one}
	} else if json.Unmarshal(t, &k.types) != nil {
		k.types = typesOf(r.member(n, "enum"))
	}
	k.types = slices.DeleteFunc(k.types, func(t string) bool { return !slices.Contains(schemaTypes, t) })
	if items := r.member(n, "items"); items != nil {
		k.items = r.kind(items, depth+1)
	}
	for _, name := range []string{"anyOf", "oneOf", "allOf"} {
		var alternatives []json.RawMessage
		_ = json.Unmarshal(r.member(n, name), &alternatives) // none, if it is no array
		for _, a := range alternatives {
			k.join(r.kind(a, depth+1))
		}
	}
	return k
}

func (k *kind) join(other *kind) {
	for _, t := range other.types {
		if !slices.Contains(k.types, t) {
			k.types = append(k.types, t)
		}
	}
	if k.items == nil {
		k.items = other.items
	}
}

// typesOf tells the types of an enumeration.
func typesOf(enum json.RawMessage) (types []string) {
	var values []json.RawMessage
	if json.Unmarshal(enum, &values) != nil {
		return nil
	}
	for _, v := range values {
		t := "number"
		switch v[0] {
		case '"':
			t = "string"
		case 't', 'f':
			t = "boolean"
		case 'n', '{', '[':
			continue // no text becomes these
		}
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}
