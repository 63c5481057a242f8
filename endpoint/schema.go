package endpoint

import (
	"encoding/json"
	"reflect"

	"postbus.example/internal/schema"
)

// Schema describes a message type as JSON Schema, draft 2020-12: whatever value of the type encoding/json writes, it
// validates. A pointer type means what it points to. Unknown members are allowed, so that a field can be added later. A
// type can describe itself with a method JSONSchema() json.RawMessage. Types that JSON can't encode are an error. The result
// must not be changed.
func Schema(t reflect.Type) (json.RawMessage, error) { return schema.For(t) }
