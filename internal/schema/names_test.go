package schema_test

import (
	"strings"
	"testing"

	"postbus.example/internal/assert"
	"postbus.example/internal/schema"
)

func TestSanitize(t *testing.T) {
	for name, want := range map[string]string{
		"Base":            "Base",
		"Page[main.Base]": "Page_Base",
		"Page[acme.example/internal/schema_test.Base]": "Page_Base",
		"Pair[int,gopkg.in/yaml%2ev3.Node]":            "Pair_int_Node",
		"Page[map[string]*a/b.Base]":                   "Page_map_string_Base",
		"Page[a/b.Page[c/d.Base·1]]":                   "Page_Page_Base_1",
		"Page[struct { A a/b.C \"json:\\\"x\\\"\" }]":  "Page_struct_A_C_json_x",
		"Snake_Case":             "Snake_Case",
		"_":                      "Type",
		"":                       "Type",
		"Ärger":                  "rger",
		"世界":                     "Type",
		strings.Repeat("x", 500): strings.Repeat("x", 95),
	} {
		assert.Equal(t, schema.Sanitize(schema.Unqualified(name)), want, name)
	}
}

func FuzzSanitize(f *testing.F) {
	f.Add("Page[main.Base]")
	f.Add(strings.Repeat("x·", 60))
	f.Add("a/b.c·1\xff")
	f.Fuzz(func(t *testing.T, name string) {
		got := schema.Sanitize(schema.Unqualified(name))
		assert.True(t, legalName.MatchString(got) && len(got) <= 96, got)
		assert.Equal(t, schema.Sanitize(got), got)
	})
}
