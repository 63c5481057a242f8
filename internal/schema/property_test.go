package schema_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"pgregory.net/rapid"

	"postbus.example/internal/assert"
	"postbus.example/internal/schema"
)

// resolve reads a schema as a user of it would. It fails for one that is not a schema.
func resolve(t rapid.TB, raw json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return r
}

func validate(r *jsonschema.Resolved, instance []byte) error {
	var v any
	if err := json.Unmarshal(instance, &v); err != nil {
		return err
	}
	return r.Validate(v)
}

// strict closes the objects of a schema that describe structs, to prove that no member goes undescribed.
func strict(t rapid.TB, raw json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	s := resolve(t, raw).Schema().CloneSchemas()
	closeObjects(s)
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return r
}

func closeObjects(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	for _, child := range slices.Concat(slices.Collect(maps.Values(s.Properties)), slices.Collect(maps.Values(s.Defs)), s.AnyOf,
		[]*jsonschema.Schema{s.Items, s.AdditionalProperties}) {
		closeObjects(child)
	}
	if s.Type == "object" || s.Properties != nil {
		s.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}}
	}
}

var legalName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// schemaOf returns the schema of a type and checks what must hold for each.
func schemaOf(t rapid.TB, typ reflect.Type) (json.RawMessage, *jsonschema.Resolved) {
	t.Helper()
	raw, err := schema.For(typ)
	if err != nil {
		t.Fatalf("%v: %v", typ, err)
	}
	again, _ := schema.For(typ)
	embedded, _ := json.Marshal(raw)
	if !bytes.Equal(raw, again) || !bytes.Equal(raw, embedded) {
		t.Fatalf("%v: not the same bytes each time:\n%s\n%s\n%s", typ, raw, again, embedded)
	}
	r := resolve(t, raw)
	for name := range r.Schema().Defs {
		if !legalName.MatchString(name) {
			t.Fatalf("%v: illegal name %q", typ, name)
		}
	}
	return raw, r
}

// checkValue is the promise of the package: what json.Marshal writes for any value is valid under the schema of its type.
func checkValue(t *rapid.T, typ reflect.Type, raw json.RawMessage, schemas ...*jsonschema.Resolved) {
	v := reflect.New(typ)
	if typ.Kind() == reflect.Pointer { // a message is never null
		v.Elem().Set(reflect.New(typ.Elem()))
		fill(t, v.Elem().Elem(), 3)
	} else {
		fill(t, v.Elem(), 3)
	}
	body, err := json.Marshal(v.Interface())
	if err != nil {
		t.Fatalf("%v: the generator made a value that has no JSON: %v", typ, err)
	}
	for _, r := range schemas {
		if err := validate(r, body); err != nil {
			t.Fatalf("%v: the schema is false: %v\nvalue  %s\nschema %s", typ, err, body, raw)
		}
	}
}

func TestRandomTypes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for range 2 {
			typ := drawType(t, 3)
			raw, r := schemaOf(t, typ)
			closed := strict(t, raw)
			for range 3 {
				checkValue(t, typ, raw, r, closed)
			}
		}
	})
}

func TestZoo(t *testing.T) {
	t.Parallel()
	for _, typ := range zoo {
		raw, r := schemaOf(t, typ)
		closed := strict(t, raw)
		rapid.Check(t, func(t *rapid.T) { checkValue(t, typ, raw, r, closed) })
	}
}

// What reflection can't set: embedded pointers to structs that are not exported.
func TestHandmade(t *testing.T) {
	for _, v := range []any{
		&Promoted{viaPointer: &viaPointer{}},
		&map[string]Promoted{"a": {viaPointer: &viaPointer{}}, "b": {}},
		&Hiding{named: named{7}, octet: 3, hidden: hidden{h: 2, I: &hidden{}}},
		&struct{ *hidden }{&hidden{H: 1}},
		&struct{ *hidden }{},
		&struct {
			*named `json:"n"`
		}{},
	} {
		raw, r := schemaOf(t, reflect.TypeOf(v))
		body, err := json.Marshal(v)
		assert.NoError(t, err)
		assert.NoError(t, validate(r, body), string(body), string(raw))
	}
}
