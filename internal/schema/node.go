package schema

import (
	"bytes"
	"encoding/json"
	"slices"
)

// A node is a schema, of the keywords that this package uses, in the order they are written. The empty node
// allows anything.
type node struct {
	Ref                  *def             `json:"$ref,omitempty"`
	Description          string           `json:"description,omitempty"`
	Type                 typeSet          `json:"type,omitempty"`
	Format               string           `json:"format,omitempty"`
	ContentEncoding      string           `json:"contentEncoding,omitempty"`
	Pattern              string           `json:"pattern,omitempty"`
	Minimum              *int64           `json:"minimum,omitempty"`
	Maximum              *int64           `json:"maximum,omitempty"`
	Items                *node            `json:"items,omitempty"`
	MinItems             *int             `json:"minItems,omitempty"`
	MaxItems             *int             `json:"maxItems,omitempty"`
	Properties           properties       `json:"properties,omitempty"`
	Required             []string         `json:"required,omitempty"`
	PropertyNames        *node            `json:"propertyNames,omitempty"`
	AdditionalProperties *node            `json:"additionalProperties,omitempty"`
	AnyOf                []*node          `json:"anyOf,omitempty"`
	Defs                 map[string]*node `json:"$defs,omitempty"`

	own json.RawMessage // stands for all of the above, at the root and in $defs
}

// any reports whether the node says nothing, not even a description.
func (n *node) any() bool {
	return n.Ref == nil && n.Type == nil && n.AnyOf == nil && n.own == nil
}

// orNull allows null besides what the node allows. The node is used up.
func (n *node) orNull() *node {
	null := &node{Type: typeSet{"null"}}
	switch {
	case n.any(), n.AnyOf != nil, slices.Contains(n.Type, "null"):
		return n
	case n.Type != nil: // the other keywords are about values of their own types, so that null passes them
		n.Type = append(n.Type, "null")
		return n
	default:
		return &node{AnyOf: []*node{n, null}}
	}
}

// MarshalJSON implements [json.Marshaler].
func (n *node) MarshalJSON() ([]byte, error) {
	if n.own != nil {
		return n.own, nil
	}
	type plain node
	return json.Marshal((*plain)(n))
}

// A typeSet is the keyword type: one name or several.
type typeSet []string

func (s typeSet) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

type property struct {
	name   string
	schema *node
}

// properties keep the order of the struct, which is the order people know.
type properties []property

func (ps properties) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			buf.WriteByte(',')
		}
		name, err := json.Marshal(p.name)
		if err != nil {
			return nil, err
		}
		schema, err := json.Marshal(p.schema)
		if err != nil {
			return nil, err
		}
		buf.Write(name)
		buf.WriteByte(':')
		buf.Write(schema)
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

// A def is an entry of $defs.
type def struct {
	key  key
	used bool // referred to, maybe before its schema is complete
	node *node
	name string // set by nameDefs, when all are known
}

func (d *def) refer() *node {
	d.used = true
	return &node{Ref: d}
}

// MarshalText implements [encoding.TextMarshaler]: a reference to the entry. Its name needs no escaping.
func (d *def) MarshalText() ([]byte, error) { return []byte("#/$defs/" + d.name), nil }
