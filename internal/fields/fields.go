// Package fields says which fields of a struct an encoder sees: func(reflect.Type) []Field.
//
// The rules are those of encoding/json, which other encoders follow but for their tags: embedded structs are
// flattened, and of several fields with one key the shallowest wins, then the only tagged one, and otherwise none.
package fields

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// A Field is a field that is encoded. Its Index leads to it from the outermost struct, as in [reflect.VisibleFields].
type Field struct {
	reflect.StructField

	Key    string // of the member
	Path   string // the way to it in Go names, such as ".Base.Done"
	ViaPtr bool   // promoted through an embedded pointer: absent with it, addressable through it
	tagged bool
}

// Rules are where encoders differ.
type Rules struct {
	// Tag returns the key in a field's tag, "" without one, whether the tag makes the field win against untagged ones,
	// and whether the field is encoded at all.
	Tag func(tag reflect.StructTag) (key string, tagged, ok bool)

	// DropTwins ignores structs that are embedded twice at one level, with all that is in them. Without it their own
	// fields annihilate each other, hide deeper ones of the same key, and what the structs embed is seen.
	DropTwins bool
}

// JSON are the rules of encoding/json.
var JSON = Rules{Tag: jsonTag}

// Of returns the fields of the struct t that are encoded, in the order in which they are written.
func (r Rules) Of(t reflect.Type) []Field {
	all := r.candidates(t)
	slices.SortFunc(all, func(a, b Field) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(len(a.Index), len(b.Index)), tagsFirst(a, b))
	})
	visible := all[:0]
	for len(all) > 0 {
		same := 1
		for same < len(all) && all[same].Key == all[0].Key {
			same++
		}
		// Equals annihilate each other, and hide the deeper ones all the same.
		if same == 1 || len(all[0].Index) != len(all[1].Index) || all[0].tagged != all[1].tagged {
			visible = append(visible, all[0])
		}
		all = all[same:]
	}
	slices.SortFunc(visible, func(a, b Field) int { return slices.Compare(a.Index, b.Index) })
	return visible
}

// Sees reports whether a field is encoded, if no other hides it, or embeds a struct whose fields may be.
func (r Rules) Sees(sf reflect.StructField) bool {
	if !sf.IsExported() && !(sf.Anonymous && pointee(sf.Type).Kind() == reflect.Struct) {
		return false
	}
	_, _, ok := r.Tag(sf.Tag)
	return ok
}

// candidates returns all fields of a struct and of what it embeds, level by level. A struct embedded at several
// levels counts at its shallowest only; one that is embedded twice at one level yields each of its fields twice.
func (r Rules) candidates(t reflect.Type) []Field {
	var all []Field
	visited := map[reflect.Type]bool{}
	level, times := []Field{{StructField: reflect.StructField{Type: t}}}, map[reflect.Type]int{}
	for len(level) > 0 {
		var next []Field
		nextTimes := map[reflect.Type]int{}
		for _, s := range level {
			typ := pointee(s.Type)
			if visited[typ] || r.DropTwins && times[typ] > 1 {
				continue
			}
			visited[typ] = true
			for i := range typ.NumField() {
				f, ok := r.look(s, i)
				switch {
				case !ok:
				case f.Key == "":
					next = append(next, f)
					nextTimes[pointee(f.Type)]++
				case times[typ] > 1:
					all = append(all, f, f)
				default:
					all = append(all, f)
				}
			}
		}
		level, times = next, nextTimes
	}
	return all
}

// look returns field i of the struct s, without a key if it is to be flattened; not ok when the encoder never sees it.
func (r Rules) look(s Field, i int) (_ Field, ok bool) {
	sf := pointee(s.Type).Field(i)
	if !r.Sees(sf) {
		return Field{}, false
	}
	key, tagged, _ := r.Tag(sf.Tag)
	if !sf.Anonymous || pointee(sf.Type).Kind() != reflect.Struct {
		key = cmp.Or(key, sf.Name)
	}
	sf.Index = append(slices.Clip(s.Index), i)
	viaPtr := s.ViaPtr || s.Type.Kind() == reflect.Pointer
	return Field{StructField: sf, Key: key, Path: s.Path + "." + sf.Name, ViaPtr: viaPtr, tagged: tagged}, true
}

func tagsFirst(a, b Field) int {
	switch {
	case a.tagged == b.tagged:
		return 0
	case a.tagged:
		return -1
	default:
		return 1
	}
}

func pointee(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer && t.Name() == "" {
		return t.Elem()
	}
	return t
}

// jsonTag ignores names that encoding/json does not accept: the field keeps its Go name, and is not tagged.
func jsonTag(tag reflect.StructTag) (key string, tagged, ok bool) {
	value := tag.Get("json")
	key, _, _ = strings.Cut(value, ",")
	for _, r := range key {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) {
			return "", false, true
		}
	}
	return key, key != "", value != "-"
}
