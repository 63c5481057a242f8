// Package schema says in JSON Schema what encoding/json writes for a Go type: func(reflect.Type) schema.
//
// The schema is true: for every type T that [For] accepts and every value v that encoding/json can encode,
// json.Marshal(&v) is valid under the schema of T. The opposite does not hold, and can't: a schema is never
// narrower than the encoder, but it may be wider (a [json.Marshaler] may write anything). What a message must
// look like on its way in is a matter for the decoder, which is laxer still.
//
// # What it follows
//
// The rules are those of encoding/json, version 1, addressability included: a method on *T is called for a T in a
// struct field or slice, but not for a T in a map, so that one type may have two schemas. Messages are
// encoded through a pointer, hence the root is addressable.
//
//   - Nil slices, maps and pointers are null, so null is allowed where they stand. A field is required when the
//     encoder always writes it: no omitempty, no omitzero, not below an embedded pointer.
//   - Objects are open (no additionalProperties: false), so that a field can be added later.
//   - A named struct below the root, a type that describes itself and every recursive type stand in $defs. The rest
//     is inline.
//   - 64-bit integers have no upper bound: their limits are not floats, and most validators compare floats.
//   - A struct field's tag doc:"…" becomes its description.
//   - $schema is left out, for a schema travels in service metadata where bytes are scarce: the dialect is
//     always [Dialect].
//
// # Reading the source
//
// schema.go walks types, manner.go decides who encodes a type (its methods or its kind), fields.go reads the options
// of a struct's fields, own.go asks types that describe themselves, node.go is the schema as data, names.go names
// $defs. Which fields a struct shows is in internal/fields, for the codecs ask it, too.
package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"postbus.example/internal/fields"
)

// Dialect is the URI of the JSON Schema draft that [For] writes.
const Dialect = "https://json-schema.org/draft/2020-12/schema"

// For returns the JSON Schema of the messages of type t: compact, the same bytes for the same type each time, and
// safe to embed with encoding/json without changing a byte. A pointer type *T describes T, for a message is
// never null.
//
// An error names every part of t that JSON can't have (channels, functions, complex numbers, map keys of other kinds
// than string, integer and [encoding.TextMarshaler]) by its path, and every [Describer] that returns no schema.
//
// For is safe for concurrent use. It caches nothing: a schema is wanted once, when an endpoint is made, and a cache
// would keep types and bytes for the life of the process.
func For(t reflect.Type) (json.RawMessage, error) {
	if t == nil {
		return nil, errors.New("schema: no type")
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	b := &builder{root: key{t, true}, defs: map[key]*def{}, sensitive: map[reflect.Type]bool{}}
	root := b.schema(place{typ: t, addr: true, path: t.String()})
	if len(b.faults) > 0 {
		return nil, errors.Join(b.faults...)
	}
	if len(b.kept) > 0 {
		nameDefs(b.kept)
		root.Defs = make(map[string]*node, len(b.kept))
		for _, d := range b.kept {
			root.Defs[d.name] = d.node
		}
	}
	return json.Marshal(root)
}

// A place is where a type stands: the encoder looks at more than the type.
type place struct {
	typ    reflect.Type
	addr   bool   // the value is addressable, so that methods on its pointer are called
	quoted bool   // the field has the option ,string
	path   string // for faults
}

// A key tells schemas apart. addr is always true for a type that is encoded the same way either way.
type key struct {
	typ  reflect.Type
	addr bool
}

type builder struct {
	root      key
	defs      map[key]*def // finished definitions, and types whose schema is being built
	kept      []*def       // finished definitions, in the order of their end
	sensitive map[reflect.Type]bool
	faults    []error
}

var timeType = reflect.TypeFor[time.Time]()

func (b *builder) schema(p place) *node {
	if p.typ.Kind() == reflect.Pointer {
		return b.pointer(p)
	}
	m := mannerOf(p.typ, p.addr)
	if n := b.own(p, m); n != nil {
		return n
	}
	switch {
	case p.typ == timeType: // a year outside 0..9999 is an error of the encoder
		return &node{Type: typeSet{"string"}, Format: "date-time"}
	case m == byJSON:
		return &node{}
	case m == byText && p.typ.Kind() == reflect.Interface: // it may be nil
		return &node{Type: typeSet{"string", "null"}}
	case m == byText: // any string: even netip.Addr has a zero value, which is no address
		return &node{Type: typeSet{"string"}}
	case isBasic(p.typ) && p.quoted:
		return quoted(p.typ)
	case isBasic(p.typ):
		return basic(p.typ)
	case p.typ.Name() == "":
		return b.byKind(p)
	default:
		return b.named(p)
	}
}

// pointer describes what p points to, or null. A type like "type P *P" leads nowhere but to nil.
func (b *builder) pointer(p place) *node {
	seen := map[reflect.Type]bool{}
	for p.typ.Kind() == reflect.Pointer {
		if seen[p.typ] {
			return &node{Type: typeSet{"null"}}
		}
		seen[p.typ] = true
		p.typ = p.typ.Elem()
	}
	p.addr = true
	return b.schema(p).orNull()
}

// named breaks cycles, which all pass through a named type. Structs have more than one child: without definitions
// their schemas could grow exponentially.
func (b *builder) named(p place) *node {
	k := key{p.typ, p.addr || !b.dependsOnAddr(p.typ)}
	if d := b.defs[k]; d != nil {
		return d.refer()
	}
	d := &def{key: k}
	b.defs[k] = d
	n := b.byKind(p)
	if !d.used && (k == b.root || p.typ.Kind() != reflect.Struct) {
		delete(b.defs, k)
		return n
	}
	d.node = n
	b.kept = append(b.kept, d)
	return d.refer()
}

func (b *builder) byKind(p place) *node {
	switch t := p.typ; t.Kind() {
	default:
		return b.fault(p, "JSON has no such thing")
	case reflect.Interface:
		return &node{}
	case reflect.Struct:
		return b.object(p)
	case reflect.Map:
		return b.dictionary(p)
	case reflect.Slice:
		if isBytes(t) {
			return &node{Type: typeSet{"string", "null"}, ContentEncoding: "base64"}
		}
		return &node{Type: typeSet{"array", "null"}, Items: b.schema(place{typ: t.Elem(), addr: true, path: p.path + "[]"})}
	case reflect.Array:
		items := b.schema(place{typ: t.Elem(), addr: p.addr, path: p.path + "[]"})
		return &node{Type: typeSet{"array"}, Items: items, MinItems: new(t.Len()), MaxItems: new(t.Len())}
	}
}

func (b *builder) object(p place) *node {
	n := &node{Type: typeSet{"object"}}
	for _, f := range fields.JSON.Of(p.typ) {
		s := b.schema(place{typ: f.Type, addr: p.addr || f.ViaPtr, quoted: isQuoted(f), path: p.path + "." + f.Name})
		s.Description = f.Tag.Get("doc")
		n.Properties = append(n.Properties, property{f.Key, s})
		if !isOptional(f) {
			n.Required = append(n.Required, f.Key)
		}
	}
	return n
}

func (b *builder) dictionary(p place) *node {
	n := &node{Type: typeSet{"object", "null"}}
	switch k := p.typ.Key(); {
	case k.Kind() == reflect.String: // as it is: even MarshalText is not asked
	case k.Implements(textMarshaler): // before integers, and only by value: keys are not addressable
	case isInt(k), isUint(k):
		n.PropertyNames = &node{Pattern: quoted(k).Pattern}
	default:
		return b.fault(p, fmt.Sprintf("a map key must be a string, an integer or a TextMarshaler, not %v", k))
	}
	if elem := b.schema(place{typ: p.typ.Elem(), path: p.path + "[]"}); !elem.any() {
		n.AdditionalProperties = elem
	}
	return n
}

// fault notes what is wrong and goes on, so that all faults are reported at once.
func (b *builder) fault(p place, reason string) *node {
	b.faults = append(b.faults, fmt.Errorf("schema: %s (%v): %s", p.path, p.typ, reason))
	return &node{}
}
