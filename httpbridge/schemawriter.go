package httpbridge

import (
	"bytes"
	"encoding/json"
	"slices"
)

// schemaWriter writes JSON Schema anew of what somebody published, keeping what is sound: known keywords with values of the
// right form.
type schemaWriter struct {
	ref func(ref string) string // what a reference becomes; "": it is left out
}

// maxWritten bounds how deep a schema is written; below, anything is allowed.
const maxWritten = 40

var (
	anything = json.RawMessage(`{}`)
	never    = json.RawMessage(`{"not":{}}`) // false, for tools that know objects only
)

func (w schemaWriter) schema(data json.RawMessage, depth int) json.RawMessage {
	if string(data) == "false" {
		return never
	}
	members, err := membersOf(data)
	if err != nil || depth > maxWritten {
		return anything
	}
	out := make([]member, 0, len(members))
	for _, m := range members {
		if value := w.keyword(m.name, m.value, depth); value != nil {
			out = append(out, member{m.name, value})
		}
	}
	return writeObject(out)
}

// keyword returns nil for what is left out: $defs, which stand elsewhere, and what is unknown or of a wrong form.
func (w schemaWriter) keyword(name string, value json.RawMessage, depth int) json.RawMessage {
	switch name {
	case "$ref":
		var ref string
		if json.Unmarshal(value, &ref) == nil && w.ref(ref) != "" {
			return quote(w.ref(ref))
		}
		return nil
	case "type":
		return goodTypes(value)
	case "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
		"unevaluatedProperties", "contentSchema":
		if value[0] == '{' || value[0] == 't' || value[0] == 'f' {
			return w.schema(value, depth+1)
		}
		return nil
	case "properties", "patternProperties", "dependentSchemas":
		return w.byName(value, depth)
	case "allOf", "anyOf", "oneOf", "prefixItems":
		return w.list(value, depth)
	case "required":
		return goodNames(value)
	case "enum", "examples":
		if value[0] != '[' || len(value) == 2 {
			return nil
		}
		return plainData(value)
	case "const", "default":
		return plainData(value)
	}
	return goodScalar(name, value)
}

func (w schemaWriter) byName(value json.RawMessage, depth int) json.RawMessage {
	members, err := membersOf(value)
	if err != nil {
		return nil
	}
	for i := range members {
		members[i].value = w.schema(members[i].value, depth+1)
	}
	return writeObject(members)
}

func (w schemaWriter) list(value json.RawMessage, depth int) json.RawMessage {
	var parts []json.RawMessage
	if json.Unmarshal(value, &parts) != nil || len(parts) == 0 {
		return nil
	}
	for i := range parts {
		parts[i] = w.schema(parts[i], depth+1)
	}
	return writeArray(parts)
}

func writeArray(parts []json.RawMessage) json.RawMessage {
	out := json.RawMessage{'['}
	for i, p := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, ']')
}

// plainData writes values that are no schemas anew, so that no name occurs twice in them. It returns nil for what looks like a
// reference, which many tools follow wherever it stands.
func plainData(value json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber() // which loses no digit
	var data any
	if d.Decode(&data) != nil || hasRef(data) {
		return nil
	}
	out, err := json.Marshal(data)
	if err != nil {
		return nil
	}
	return out
}

func hasRef(data any) bool {
	switch data := data.(type) {
	case map[string]any:
		if _, is := data["$ref"]; is {
			return true
		}
		for _, member := range data {
			if hasRef(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(data, hasRef)
	}
	return false
}

var schemaTypes = []string{"null", "boolean", "object", "array", "number", "string", "integer"}

func goodTypes(value json.RawMessage) json.RawMessage {
	var one string
	if json.Unmarshal(value, &one) == nil && slices.Contains(schemaTypes, one) {
		return quote(one)
	}
	var many []string
	if json.Unmarshal(value, &many) != nil || len(many) == 0 || !distinct(many) {
		return nil
	}
	for _, t := range many {
		if !slices.Contains(schemaTypes, t) {
			return nil
		}
	}
	return value
}

func goodNames(value json.RawMessage) json.RawMessage {
	var names []string
	if value[0] != '[' || json.Unmarshal(value, &names) != nil || !distinct(names) {
		return nil
	}
	return value
}

func distinct(names []string) bool {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return len(slices.Compact(sorted)) == len(names)
}

// goodScalar judges keywords with plain values.
func goodScalar(name string, value json.RawMessage) json.RawMessage {
	good := false
	switch name {
	case "title", "description", "format", "pattern", "contentEncoding", "contentMediaType", "$comment":
		good = value[0] == '"'
	case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
		good = isNumber(string(value))
	case "multipleOf":
		var n float64
		good = json.Unmarshal(value, &n) == nil && n > 0
	case "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains":
		var n uint32
		good = json.Unmarshal(value, &n) == nil
	case "uniqueItems", "deprecated", "readOnly", "writeOnly":
		good = value[0] == 't' || value[0] == 'f'
	}
	if !good {
		return nil
	}
	return value
}
