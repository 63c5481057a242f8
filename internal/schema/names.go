package schema

import (
	"regexp"
	"strconv"
	"strings"
)

// nameDefs gives each definition a name that is legal as a key of OpenAPI components as well: the name of the type
// without package, Page_Base for Page[main.Base]. Types that share one get their package path in front, all of
// them, so that names do not depend on which comes first; what is still equal (types local to functions) is numbered.
func nameDefs(defs []*def) {
	shared := map[string]int{}
	for _, d := range defs {
		shared[d.shortName()]++
	}
	taken := map[string]bool{}
	for _, d := range defs {
		name := d.shortName()
		if shared[name] > 1 {
			name = d.longName()
		}
		d.name = name
		for i := 2; taken[d.name]; i++ {
			d.name = name + "_" + strconv.Itoa(i)
		}
		taken[d.name] = true
	}
}

func (d *def) shortName() string { return sanitize(unqualified(d.key.typ.Name())) + d.variant() }

func (d *def) longName() string {
	return sanitize(d.key.typ.PkgPath()+"."+d.key.typ.Name()) + d.variant()
}

// variant marks the schema of a type where it has no address, in a map, when it differs.
func (d *def) variant() string {
	if d.key.addr {
		return ""
	}
	return "_value"
}

var qualified = regexp.MustCompile(`[^][{}()*,;\s]+[./]`)

// unqualified removes the package paths that reflect writes into the name of a generic type.
func unqualified(name string) string { return qualified.ReplaceAllString(name, "") }

const maxName = 96 // a type argument may be a whole struct

// sanitize makes a string match ^[a-zA-Z0-9._-]+$.
func sanitize(s string) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		legal := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-'
		switch {
		case b.Len() >= maxName-1: // room for a gap and a rune
		case !legal:
			gap = true
		default:
			if gap && b.Len() > 0 {
				b.WriteByte('_')
			}
			gap = false
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "Type"
	}
	return b.String()
}
