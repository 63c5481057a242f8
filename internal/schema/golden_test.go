package schema_test

import (
	"encoding"
	"encoding/json"
	"go/token"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"testing"
	"text/scanner"
	"time"

	"postbus.example/internal/assert"
	"postbus.example/internal/schema"
)

type node struct {
	V    int   `json:"v"`
	Next *node `json:"next"`
}

type base struct {
	ID int `json:"id"`
}

type page[T any] struct {
	Items []T `json:"items"`
}

// Each row is a type that at least one of four known reflectors describes falsely, or a rule of encoding/json.
func TestGolden(t *testing.T) {
	const num = `^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?$`
	for _, row := range []struct {
		rule string
		typ  reflect.Type
		want string
	}{
		{"bytes are base64", of[[]byte](), `{"type":["string","null"],"contentEncoding":"base64"}`},
		{"named bytes too", of[[]octet](), `{"type":["string","null"],"contentEncoding":"base64"}`},
		{"unless they encode themselves", of[[]byteJSON](), `{"type":["array","null"],"items":{}}`},
		{"an array of bytes is an array", of[[2]byte](), `{"type":"array","items":{"type":"integer","minimum":0,"maximum":255},"minItems":2,"maxItems":2}`},
		{"raw JSON is anything", of[json.RawMessage](), `{}`},
		{"an interface is anything", of[any](), `{}`},
		{"a marshaler is anything", of[valJSON](), `{}`},
		{"or what it says", of[nilMapJSON](), `{"type":"boolean"}`},
		{"recursive", of[node](), `{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"]}}}`},
		{"recursive slice", of[list](), `{"$ref":"#/$defs/list","$defs":{"list":{"type":["array","null"],"items":{"$ref":"#/$defs/list"}}}}`},
		{"recursive pointer", of[nowhere](), `{"type":"null"}`},
		{"nil slice", of[[]string](), `{"type":["array","null"],"items":{"type":"string"}}`},
		{"nil map", of[map[string]bool](), `{"type":["object","null"],"additionalProperties":{"type":"boolean"}}`},
		{"map of anything", of[map[string]any](), `{"type":["object","null"]}`},
		{"integer keys", of[map[int8]any](), `{"type":["object","null"],"propertyNames":{"pattern":"^(0|-?[1-9][0-9]*)$"}}`},
		{"unsigned keys", of[map[uint]any](), `{"type":["object","null"],"propertyNames":{"pattern":"^(0|[1-9][0-9]*)$"}}`},
		{"integer keys with text", of[map[textInt]any](), `{"type":["object","null"]}`},
		{"integer keys with text on the pointer", of[map[ptrText]any](), `{"type":["object","null"],"propertyNames":{"pattern":"^(0|-?[1-9][0-9]*)$"}}`},
		{"nil pointer", of[struct{ P *int }](), `{"type":"object","properties":{"P":{"type":["integer","null"]}},"required":["P"]}`},
		{"root pointer", of[*base](), `{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}`},
		{"root pointer to a pointer", of[**int](), `{"type":["integer","null"]}`},
		{"quoted integer", of[struct {
			N int64 `json:",string"`
		}](), `{"type":"object","properties":{"N":{"type":"string","pattern":"^(0|-?[1-9][0-9]*)$"}},"required":["N"]}`},
		{"quoted number", of[struct {
			N *json.Number `json:",string"`
		}](), `{"type":"object","properties":{"N":{"type":["string","null"],"pattern":"` + num + `"}},"required":["N"]}`},
		{"text", of[netip.Addr](), `{"type":"string"}`},
		{"text in an interface", of[encoding.TextMarshaler](), `{"type":["string","null"]}`},
		{"text by pointer, with an address", of[[]ptrText](), `{"type":["array","null"],"items":{"type":"string"}}`},
		{"text by pointer, without", of[map[string]ptrText](), `{"type":["object","null"],"additionalProperties":{"type":"integer"}}`},
		{"array", of[[3]float32](), `{"type":"array","items":{"type":"number"},"minItems":3,"maxItems":3}`},
		{"generic", of[struct{ P page[base] }](), `{"type":"object","properties":{"P":{"$ref":"#/$defs/page_base"}},"required":["P"],"$defs":{"base":{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]},"page_base":{"type":"object","properties":{"items":{"type":["array","null"],"items":{"$ref":"#/$defs/base"}}},"required":["items"]}}}`},
		{"required", of[struct {
			A int
			B int `json:",omitempty"`
			C int `json:",omitzero"`
			*base
		}](), `{"type":"object","properties":{"A":{"type":"integer"},"B":{"type":"integer"},"C":{"type":"integer"},"id":{"type":"integer"}},"required":["A"]}`},
		{"hidden", of[struct {
			A int    `json:"-"`
			B string `json:"-,"`
			c int
		}](), `{"type":"object","properties":{"-":{"type":"string"}},"required":["-"]}`},
		{"annihilated", twice, `{"type":"object"}`},
		{"dominance", conflict, `{"type":"object","properties":{"A":{"type":"boolean"},"B":{"type":["string","null"],"contentEncoding":"base64"},"a":{"type":"integer"},"c":{"type":"boolean"},"Name":{"type":["array","null"],"items":{"type":"integer"}}},"required":["A","B","a","c","Name"]}`},
		{"documented", of[struct {
			E enum `json:"e" doc:"a <colour>"`
		}](), `{"type":"object","properties":{"e":{"$ref":"#/$defs/enum","description":"a \u003ccolour\u003e"}},"required":["e"],"$defs":{"enum":{"enum":["","\u003cred\u003e","green"]}}}`},
		{"time", of[*[]*time.Time](), `{"type":["array","null"],"items":{"type":["string","null"],"format":"date-time"}}`},
		{"not a time any more", of[myTime](), `{"type":"object"}`},
		{"duration", of[time.Duration](), `{"type":"integer"}`},
		{"number", of[json.Number](), `{"type":"number"}`},
		{"not a number any more", of[noNumber](), `{"type":"string"}`},
		{"bool", of[bool](), `{"type":"boolean"}`},
		{"int8", of[int8](), `{"type":"integer","minimum":-128,"maximum":127}`},
		{"int16", of[int16](), `{"type":"integer","minimum":-32768,"maximum":32767}`},
		{"int32", of[int32](), `{"type":"integer","minimum":-2147483648,"maximum":2147483647}`},
		{"int64", of[int64](), `{"type":"integer"}`},
		{"uint16", of[uint16](), `{"type":"integer","minimum":0,"maximum":65535}`},
		{"uint32", of[uint32](), `{"type":"integer","minimum":0,"maximum":4294967295}`},
		{"uint64", of[uint64](), `{"type":"integer","minimum":0}`},
	} {
		t.Run(row.rule, func(t *testing.T) {
			got, err := schema.For(row.typ)
			assert.NoError(t, err)
			assert.Equal(t, string(got), row.want)
		})
	}
}

func of[T any]() reflect.Type { return reflect.TypeFor[T]() }

// The first type of a name must not own it, or the other would change its name when a field is added before it.
func TestNamesDoNotClash(t *testing.T) {
	raw, err := schema.For(of[struct {
		A token.Position
		B scanner.Position
		C base
	}]())
	assert.NoError(t, err)
	assert.Contains(t, string(raw), `"A":{"$ref":"#/$defs/go_token.Position"}`, `"B":{"$ref":"#/$defs/text_scanner.Position"}`,
		`"C":{"$ref":"#/$defs/base"}`)

	first := func() reflect.Type { type local struct{ A int }; return of[local]() }()
	second := func() reflect.Type { type local struct{ B string }; return of[local]() }()
	raw, err = schema.For(reflect.StructOf([]reflect.StructField{{Name: "X", Type: first}, {Name: "Y", Type: second}, {Name: "Z", Type: first}}))
	assert.NoError(t, err)
	long := schema.Sanitize(first.PkgPath() + ".local")
	assert.Contains(t, string(raw), `"X":{"$ref":"#/$defs/`+long+`"}`, `"Y":{"$ref":"#/$defs/`+long+`_2"}`, `"Z":{"$ref":"#/$defs/`+long+`"}`)
}

// A type has a second definition only if it is encoded in another way where it has no address.
func TestNamesWithoutAddress(t *testing.T) {
	raw, err := schema.For(of[Both]())
	assert.NoError(t, err)
	assert.Contains(t, string(raw), `"A":{"type":["array","null"],"items":{"$ref":"#/$defs/InArray"}}`,
		`"B":{"type":["object","null"],"additionalProperties":{"$ref":"#/$defs/InArray_value"}}`,
		`"C":{"type":["array","null"],"items":{"$ref":"#/$defs/BehindPointer"}}`,
		`"D":{"type":["object","null"],"additionalProperties":{"$ref":"#/$defs/BehindPointer"}}`)
}

type wide[T any] struct{ A, B T }

type cube[T any] = wide[wide[wide[T]]]

// Without definitions this schema would describe base 4,096 times.
func TestWideTypesStaySmall(t *testing.T) {
	raw, err := schema.For(of[cube[cube[cube[cube[base]]]]]())
	assert.NoError(t, err)
	assert.True(t, len(raw) < 8<<10, "small")
}

// The validator takes format for a comment, so that the property says nothing about it.
func TestTimesAreDateTimes(t *testing.T) {
	dateTime := regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]([01]\d|2[0-3]):[0-5]\d)"$`)
	for _, year := range []int{0, 1, 999, 9999} {
		for _, offset := range []int{0, 1, 59, -60, 86_399, -86_399} {
			for _, nanos := range []int{0, 1, 500_000_000} {
				body, err := json.Marshal(time.Date(year, 6, 1, 2, 3, 4, nanos, time.FixedZone("", offset)))
				assert.NoError(t, err)
				assert.True(t, dateTime.Match(body), string(body))
			}
		}
	}
	for _, v := range []time.Time{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, err := json.Marshal(v)
		assert.True(t, err != nil, "years of five digits have no JSON")
	}
}

// Why int64 has no bounds: as floats, the greatest int64 is not below its own limit.
func TestInt64HasNoFloatLimit(t *testing.T) {
	assert.True(t, float64(math.MaxInt64) == 1<<63)
}
