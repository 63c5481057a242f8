package schema

import (
	"reflect"
	"slices"
	"strings"

	"postbus.example/internal/fields"
)

// isOptional reports whether the encoder may leave a field out.
func isOptional(f fields.Field) bool {
	return f.ViaPtr || hasOption(f, "omitempty") || hasOption(f, "omitzero")
}

// isQuoted reports whether a field has the option ,string and is of a kind that obeys it.
func isQuoted(f fields.Field) bool {
	t := f.Type
	if t.Kind() == reflect.Pointer && t.Name() == "" {
		t = t.Elem()
	}
	return isBasic(t) && hasOption(f, "string")
}

func hasOption(f fields.Field, option string) bool {
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return slices.Contains(strings.Split(options, ","), option)
}
