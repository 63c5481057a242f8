package codec

import (
	"reflect"
	"strings"
	"unicode"
)

// jsonField is a struct field that encoding/json looks at.
type jsonField struct {
	name   string // the key
	path   string // the way to it in Go names, such as ".Base.Done"
	typ    reflect.Type
	depth  int
	tagged bool
	addr   bool
}

// jsonFields returns the fields of t that encoding/json encodes: embedded structs are flattened; of several fields
// with one key the shallowest wins, then the only tagged one, and otherwise none. Hidden fields may be of any type.
func jsonFields(t reflect.Type, addr bool) []jsonField {
	var all []jsonField
	seen := map[reflect.Type]bool{t: true}
	for level := []jsonField{{typ: t, addr: addr}}; len(level) > 0; {
		var next []jsonField
		for _, s := range level {
			for i := range s.typ.NumField() {
				f, embedded := jsonFieldOf(s, i)
				switch {
				case f == nil:
				case !embedded:
					all = append(all, *f)
				case !seen[f.typ]:
					next = append(next, *f)
				}
			}
		}
		// A type embedded twice on one level hides its own fields: both copies are kept, so that they tie.
		for _, s := range next {
			seen[s.typ] = true
		}
		level = next
	}
	return dominant(all)
}

// jsonFieldOf returns field i of the struct s, nil if encoding/json ignores it, and whether it is to be flattened.
func jsonFieldOf(s jsonField, i int) (_ *jsonField, embedded bool) {
	sf := s.typ.Field(i)
	tag := sf.Tag.Get("json")
	inner := deref(sf.Type)
	if tag == "-" || !sf.IsExported() && !(sf.Anonymous && inner.Kind() == reflect.Struct) {
		return nil, false
	}
	name, _, _ := strings.Cut(tag, ",")
	if !validKey(name) {
		name = ""
	}
	f := jsonField{name: name, path: s.path + "." + sf.Name, typ: sf.Type, depth: s.depth + 1, tagged: name != "", addr: s.addr}
	if sf.Anonymous && name == "" && inner.Kind() == reflect.Struct {
		f.addr = f.addr || sf.Type.Kind() == reflect.Pointer
		f.typ = inner
		return &f, true
	}
	if name == "" {
		f.name = sf.Name
	}
	return &f, false
}

// dominant leaves one field or none for each key, in order.
func dominant(all []jsonField) []jsonField {
	best := map[string]*jsonField{}
	for i := range all {
		f := &all[i]
		b, clash := best[f.name]
		switch {
		case !clash || f.depth == b.depth && f.tagged && !b.tagged:
			best[f.name] = f
		case f.depth == b.depth && f.tagged == b.tagged:
			best[f.name] = &jsonField{depth: b.depth, tagged: b.tagged} // a tie: none, unless a tagged one follows
		}
	}
	var out []jsonField
	for i := range all {
		if best[all[i].name] == &all[i] {
			out = append(out, all[i])
		}
	}
	return out
}

// validKey is encoding/json's rule for names in tags.
func validKey(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return s != ""
}
