package schema

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// A field is a struct field as encoding/json shows it.
type field struct {
	name     string // of the member
	goName   string
	tagged   bool // the name comes from the tag, which wins against names that do not
	index    []int
	typ      reflect.Type
	optional bool // the encoder may leave it out
	quoted   bool // ,string, and of a kind that obeys it
	viaPtr   bool // promoted through an embedded pointer: absent with it, addressable through it
	doc      string
}

// An embedding is a struct whose fields are promoted to the struct in question.
type embedding struct {
	typ    reflect.Type
	index  []int
	viaPtr bool
}

// fieldsOf returns the visible fields of a struct in the order they are written.
func fieldsOf(t reflect.Type) []field {
	fields := candidates(t)
	slices.SortFunc(fields, func(a, b field) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(len(a.index), len(b.index)), -compareBool(a.tagged, b.tagged))
	})
	visible := fields[:0]
	for len(fields) > 0 {
		same := 1
		for same < len(fields) && fields[same].name == fields[0].name {
			same++
		}
		// The shallowest wins, then a tagged one. Equals annihilate each other, and hide the deeper ones all the same.
		if same == 1 || len(fields[0].index) != len(fields[1].index) || fields[0].tagged != fields[1].tagged {
			visible = append(visible, fields[0])
		}
		fields = fields[same:]
	}
	slices.SortFunc(visible, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return visible
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// candidates returns all fields of a struct and of what it embeds, level by level. A struct embedded at
// several levels counts at its shallowest only; one that is embedded twice at one level yields each field twice.
func candidates(t reflect.Type) []field {
	var fields []field
	visited := map[reflect.Type]bool{}
	level, times := []embedding{{typ: t}}, map[reflect.Type]int{}
	for len(level) > 0 {
		var next []embedding
		nextTimes := map[reflect.Type]int{}
		for _, e := range level {
			if visited[e.typ] {
				continue
			}
			visited[e.typ] = true
			for i := range e.typ.NumField() {
				f, deeper, ok := e.look(i)
				switch {
				case !ok:
				case deeper != nil:
					if nextTimes[deeper.typ]++; nextTimes[deeper.typ] == 1 {
						next = append(next, *deeper)
					}
				default:
					fields = append(fields, f)
					if times[e.typ] > 1 {
						fields = append(fields, f)
					}
				}
			}
		}
		level, times = next, nextTimes
	}
	return fields
}

// look returns the i-th field of a struct as a field or as a further embedding; not ok when JSON never sees it.
func (e embedding) look(i int) (f field, deeper *embedding, ok bool) {
	sf := e.typ.Field(i)
	tag := sf.Tag.Get("json")
	if tag == "-" || !reachable(sf) {
		return field{}, nil, false
	}
	name, options, _ := strings.Cut(tag, ",")
	if !validName(name) {
		name = ""
	}
	index := append(slices.Clip(e.index), i)
	typ, pointer := sf.Type, false
	if typ.Kind() == reflect.Pointer && typ.Name() == "" {
		typ, pointer = typ.Elem(), true
	}
	if sf.Anonymous && name == "" && typ.Kind() == reflect.Struct {
		return field{}, &embedding{typ, index, e.viaPtr || pointer}, true
	}
	has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
	return field{
		name:     cmp.Or(name, sf.Name),
		goName:   sf.Name,
		tagged:   name != "",
		index:    index,
		typ:      sf.Type,
		optional: e.viaPtr || has("omitempty") || has("omitzero"),
		quoted:   has("string") && isBasic(typ),
		viaPtr:   e.viaPtr,
		doc:      sf.Tag.Get("doc"),
	}, nil, true
}

// reachable reports whether a field is exported, or embeds a struct, whose own fields may be.
func reachable(sf reflect.StructField) bool {
	t := sf.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return sf.IsExported() || sf.Anonymous && t.Kind() == reflect.Struct
}

// validName reports whether encoding/json accepts a name in a tag; with another, the field keeps its Go name.
func validName(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) {
			return false
		}
	}
	return s != ""
}
