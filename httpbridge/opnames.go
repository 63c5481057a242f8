package httpbridge

import (
	"slices"
	"strconv"
	"strings"
)

// identify names the operations: by their subject, and by subject and method where that is taken. Those under subjects' paths
// come first, so that a route more changes no name of theirs.
func (d *description) identify() {
	for i, o := range slices.Concat(d.plain, d.routed) {
		wish := o.subject
		if o.method == "get" && i < len(d.plain) || d.ids[bareName(wish)] {
			wish += "." + o.method
		}
		o.ID = componentName(wish)
		for n := 2; d.ids[bareName(o.ID)]; n++ {
			o.ID = componentName(wish) + "_" + strconv.Itoa(n)
		}
		d.ids[bareName(o.ID)] = true
	}
}

// bareName is what generators leave of a name: they take names for the same that differ in case or punctuation.
func bareName(name string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune("._-", r) {
			return -1
		}
		return r
	}, componentName(name)))
}
