package schema_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"postbus.example/internal/assert"
	"postbus.example/internal/schema"
)

// A schema that allows anything is true as well. These instances must be refused.
func TestRefuses(t *testing.T) {
	for _, row := range []struct {
		typ       reflect.Type
		instances []string
	}{
		{of[bool](), []string{`null`, `0`, `"true"`}},
		{of[string](), []string{`null`, `1`, `[]`}},
		{of[int](), []string{`null`, `1.5`, `"1"`}},
		{of[int8](), []string{`128`, `-129`}},
		{of[int32](), []string{`2147483648`, `-2147483649`}},
		{of[uint8](), []string{`256`, `-1`}},
		{of[uint64](), []string{`-1`, `0.5`}},
		{of[float32](), []string{`null`, `"1"`}},
		{of[json.Number](), []string{`null`, `"1"`}},
		{of[[]byte](), []string{`[1]`, `1`}},
		{of[[2]byte](), []string{`null`, `"AAA="`, `[1]`, `[1,2,3]`, `[1,256]`}},
		{of[[]int](), []string{`{}`, `["1"]`, `[null]`}},
		{of[map[string]int](), []string{`[]`, `{"a":"1"}`, `{"a":null}`}},
		{of[map[int]any](), []string{`{"":1}`, `{"01":1}`, `{"x":1}`, `{"-0":1}`}},
		{of[map[uint8]any](), []string{`{"-1":1}`}},
		{of[time.Time](), []string{`null`, `1`, `{}`}},
		{of[textKey](), []string{`1`, `{}`}},
		{of[base](), []string{`null`, `{}`, `{"id":"1"}`, `{"ID":1}`, `[]`}},
		{of[*base](), []string{`null`}},
		{of[**base](), []string{`1`, `{}`}},
		{of[nowhere](), []string{`{}`, `1`}},
		{of[Tree](), []string{
			`{}`, `{"name":"a","kids":null}`, `{"name":"a","kids":null,"up":1}`, `{"name":"a","kids":[{}],"up":null}`,
			`{"name":"a","kids":[null],"up":null}`, `{"name":"a","kids":[],"up":{"name":"b","kids":[],"up":{"name":1}}}`,
			`{"name":"a","kids":[],"up":null,"index":{"x":{}}}`,
		}},
		{of[list](), []string{`{}`, `[1]`, `[[[[""]]]]`}},
		{of[dict](), []string{`[]`, `{"a":{"b":[]}}`}},
		{of[described](), []string{`{}`, `[1]`, `["1","2"]`, `null`}},
		{of[struct{ E *enum }](), []string{`{"E":"blue"}`, `{}`}},
		{of[map[string]ptrJSON](), []string{`{"a":"1"}`}}, // without an address: an object
		{of[[]ptrJSON](), []string{`[{"A":1}]`}},          // with one: a string
		{of[[]Addressed](), []string{`[{"P":"1","Q":["p1","p2"],"M":"1","R":null,"S":[],"Own":{}}]`}},
		{of[struct {
			B bool    `json:",string"`
			I int     `json:",string"`
			U *uint   `json:",string"`
			F float64 `json:",string"`
			S string  `json:",string"`
		}](), []string{
			`{"B":true,"I":"1","U":null,"F":"1","S":"\"\""}`, `{"B":"true","I":1,"U":null,"F":"1","S":"\"\""}`,
			`{"B":"true","I":"x","U":null,"F":"1","S":"\"\""}`, `{"B":"true","I":"1","U":"-1","F":"1","S":"\"\""}`,
			`{"B":"true","I":"1","U":null,"F":"NaN","S":"\"\""}`, `{"B":"true","I":"1","U":null,"F":"1","S":"x"}`,
			`{"B":"yes","I":"1","U":null,"F":"1","S":"\"\""}`, `{"B":"true","I":"1","U":null,"F":1,"S":"\"\""}`,
		}},
	} {
		raw, r := schemaOf(t, row.typ)
		for _, instance := range row.instances {
			assert.True(t, json.Valid([]byte(instance)), instance)
			assert.True(t, validate(r, []byte(instance)) != nil, fmt.Sprintf("%v refuses %s with %s", row.typ, instance, raw))
		}
	}
}

func TestOpenForEvolution(t *testing.T) {
	_, r := schemaOf(t, of[Tree]())
	assert.NoError(t, validate(r, []byte(`{"name":"a","kids":[],"up":null,"added":{"later":true}}`)))
}

type badKey struct{ F float64 }

type selfRef struct{}

func (selfRef) JSONSchema() json.RawMessage {
	return json.RawMessage(`{"items":[{"$ref":"#/$defs/x"}]}`)
}

type noSchema struct{}

func (noSchema) JSONSchema() json.RawMessage { return json.RawMessage(`[]`) }

type broken struct{}

func (broken) JSONSchema() json.RawMessage { return json.RawMessage(`{`) }

type panics struct{}

func (panics) JSONSchema() json.RawMessage { panic("no luck") }

func TestFaults(t *testing.T) {
	type inner struct{ C chan int }
	for _, row := range []struct {
		typ  reflect.Type
		want []string
	}{
		{nil, []string{"no type"}},
		{of[func()](), []string{"func() (func())"}},
		{of[complex128](), []string{"complex128"}},
		{of[struct{ In map[string][]*inner }](), []string{".In[][].C (chan int): JSON has no such thing"}},
		{of[struct{ M map[badKey]int }](), []string{".M (map[schema_test.badKey]int): a map key must be", "not schema_test.badKey"}},
		{of[map[*int]int](), []string{"not *int"}},
		{of[struct {
			A map[bool]int
			B [0]func()
		}](), []string{".A (", "not bool", ".B[] (func())"}}, // all at once
		{of[struct{ S selfRef }](), []string{".S (schema_test.selfRef): JSONSchema: it refers to"}},
		{of[noSchema](), []string{"JSONSchema: it must be an object or a boolean"}},
		{of[broken](), []string{"JSONSchema: unexpected end"}},
		{of[[]panics](), []string{"[] (schema_test.panics): JSONSchema: panic: no luck"}},
	} {
		raw, err := schema.For(row.typ)
		assert.True(t, err != nil && raw == nil, fmt.Sprint(row.typ, " is refused"))
		assert.Contains(t, err.Error(), row.want...)
	}
}

// What no value can reach is no fault.
func TestUnseenIsNoFault(t *testing.T) {
	for _, typ := range []reflect.Type{
		of[struct {
			A chan int `json:"-"`
			b func()
		}](),
		of[struct {
			A int
			TwiceFunc
		}](), // A hides the embedded one
		of[map[textInt]any](), of[map[valText]any](),
	} {
		_, err := schema.For(typ)
		assert.NoError(t, err)
	}
}

type TwiceFunc struct{ A func() }
