package schema_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"postbus.example/internal/assert"
	"postbus.example/internal/schema"
)

type withID struct{}

func (*withID) JSONSchema() json.RawMessage {
	return json.RawMessage(`{"$id": "https://example.org/x", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}`)
}

type nothing bool

func (nothing) JSONSchema() json.RawMessage { return json.RawMessage(` false `) }

func TestDescribers(t *testing.T) {
	for want, typ := range map[string]any{
		`"properties":{"E":{"$ref":"#/$defs/enum"},"P":{"anyOf":[{"$ref":"#/$defs/enum"},{"type":"null"}]}}`: struct {
			E enum
			P *enum
		}{},
		`"$defs":{"withID":{"$id":"https://example.org/x","$ref":"#/$defs/a","$defs":{"a":{"type":"object"}}}}`: []*withID{},
		`"properties":{"N":{"$ref":"#/$defs/nothing"},"Q":{"type":"string","pattern":"^(true|false)$"}}`: struct {
			N nothing
			Q nothing `json:",string"`
		}{},
		`"nothing":false`: []nothing{},
		`"LentSchema":{"type":"object","properties":{"K":`: (*[]LentSchema)(nil), // promoted: of the part only
		`{"required":["K","N"]}`:                           Over{},               // its own
		`{}`:                                               Lent{},               // promoted with the encoding
	} {
		raw, err := schema.For(reflect.TypeOf(typ))
		assert.NoError(t, err)
		assert.Contains(t, string(raw), want)
	}
}

// The interface is internal; users only need the method.
var (
	_ schema.Describer = enum("")
	_ schema.Describer = (*ptrEnum)(nil)
)
