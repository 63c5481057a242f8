package httpbridge

import (
	"encoding/json"
	"slices"
)

// fieldSet are the fields of a request for one route's description: some stand in its path, others in the query or the body.
type fieldSet struct {
	m        *message // nil: not known
	root     []member // of the schema of the request, after references
	fields   []member
	required []string
	shape    *shape
}

func newFields(m *message) *fieldSet {
	f := &fieldSet{m: m}
	if m == nil {
		return f
	}
	f.shape = newShape(m.root)
	r := newSchemaReader(m.root)
	f.root = r.object(r.resolve(m.root))
	for _, part := range f.root {
		switch part.name {
		case "properties":
			f.fields = r.object(part.value)
			f.fields = f.fields[:min(len(f.fields), maxDefinitions)]
		case "required":
			_ = json.Unmarshal(part.value, &f.required) // what is no list of names requires nothing
		}
	}
	return f
}

// parameter describes one field in a path or a query.
func (f *fieldSet) parameter(name, in string) oasParameter {
	p := oasParameter{Name: name, In: in, Required: in == "path", Schema: json.RawMessage(`{"type":"string"}`)}
	known, k := f.shape.field(name)
	for _, m := range f.fields {
		if m.name != known {
			continue
		}
		schema := f.m.rewrite(m.value)
		p.Description = textOf(schema, "description")
		p.Schema = asText(schema, k, in)
		p.Required = p.Required || slices.Contains(f.required, known)
	}
	return p
}

// query describes all fields that a query can have and the path has not.
func (f *fieldSet) query(path []string) (params []oasParameter) {
	for _, m := range f.fields {
		k := f.shape.kindOf(m.name)
		if f.in(path, m.name) || m.name == "" || !k.textual() {
			continue
		}
		params = append(params, f.parameter(m.name, "query"))
	}
	return params
}

// in reports whether a path has a field.
func (f *fieldSet) in(path []string, field string) bool {
	return slices.ContainsFunc(path, func(name string) bool {
		known, _ := f.shape.field(name)
		return known == field
	})
}

// body describes the request without what the path has.
func (f *fieldSet) body(path []string) json.RawMessage {
	if f.m == nil || len(path) == 0 {
		return f.m.schema()
	}
	var out []member
	for _, part := range f.root {
		switch part.name {
		case "properties":
			rest := slices.DeleteFunc(slices.Clone(f.fields), func(m member) bool { return f.in(path, m.name) })
			part.value = writeObject(rest)
		case "required":
			var rest []json.RawMessage
			for _, name := range f.required {
				if !f.in(path, name) {
					rest = append(rest, quote(name))
				}
			}
			part.value = writeArray(rest)
		}
		out = append(out, part)
	}
	return f.m.rewrite(writeObject(out))
}

func (s *shape) kindOf(name string) *kind {
	_, k := s.field(name)
	return k
}

// textual reports whether text can become it.
func (k *kind) textual() bool {
	types := k.concrete()
	return len(types) == 0 || slices.ContainsFunc(types, scalar) || slices.Contains(types, "array") && (k.items == nil || len(k.items.concrete()) == 0 || slices.ContainsFunc(k.items.types, scalar))
}

// asText takes null from a schema, which no text is; an array in a path is its one element.
func asText(schema json.RawMessage, k *kind, in string) json.RawMessage {
	types := k.concrete()
	if len(types) == 0 { // without a type, it is a string
		return json.RawMessage(`{"type":"string"}`)
	}
	members, _ := membersOf(schema) // it was written as an object
	var out []member
	for _, m := range members {
		switch m.name {
		case "description":
			continue
		case "type":
			if len(types) == 1 {
				m.value = quote(types[0])
			}
		case "items":
			if in == "path" {
				return m.value
			}
		}
		out = append(out, m)
	}
	return writeObject(out)
}

func textOf(schema json.RawMessage, name string) (text string) {
	members, _ := membersOf(schema) // what is no object has none
	for _, m := range members {
		if m.name == name {
			_ = json.Unmarshal(m.value, &text) // no string: no text
		}
	}
	return text
}
