package httpbridge

import (
	"crypto/sha256"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// components are the schemas of one document. Published schemas come from whoever serves: only what is known to be sound
// goes in, so that none can break the document.
type components struct {
	named map[string]json.RawMessage
	taken map[string]meaning // by what generators leave of names
	given map[meaning]string // to what was wanted
	next  map[string]int     // the number to try next behind a name that is taken
	rival map[string]bool    // the same, of definitions that stand for different things
}

// meaning is a name and what it stands for.
type meaning struct {
	name string
	mark [sha256.Size]byte
}

// message is the schema of one endpoint's request or response.
type message struct {
	service, name string
	root          json.RawMessage
	defs          map[string]json.RawMessage
	prints        map[string][sha256.Size]byte // of defs, with all that they refer to
	refs          map[string]string            // of defs: their components
}

func newComponents(messages []*message) *components {
	c := &components{
		named: map[string]json.RawMessage{"Error": errorSchema},
		taken: map[string]meaning{},
		given: map[meaning]string{},
		next:  map[string]int{},
		rival: map[string]bool{},
	}
	c.name("Error", sha256.Sum256(errorSchema))
	first := map[string]meaning{bareName("Error"): c.taken[bareName("Error")]}
	for _, m := range messages {
		for def, mark := range m.prints {
			mine := meaning{componentName(def), mark}
			if other, there := first[bareName(def)]; there && other != mine {
				c.rival[bareName(def)] = true
			}
			first[bareName(def)] = mine
		}
	}
	for _, m := range messages {
		c.add(m)
	}
	return c
}

// newMessage returns nil for what is no schema of anything.
func newMessage(service, name string, schema json.RawMessage) *message {
	members, err := membersOf(schema)
	if err != nil || len(members) == 0 || !utf8.Valid(schema) {
		return nil
	}
	m := &message{
		service: service, name: name, root: schema, defs: map[string]json.RawMessage{},
		prints: map[string][sha256.Size]byte{}, refs: map[string]string{},
	}
	for _, part := range members {
		if part.name != "$defs" && part.name != "definitions" {
			continue
		}
		defs, _ := membersOf(part.value) // what is no object has none
		for _, d := range defs {
			m.defs[d.name] = d.value
		}
	}
	if len(m.defs) > maxDefinitions {
		return nil
	}
	m.fingerprint()
	return m
}

// maxDefinitions is how many definitions a schema may have that is described.
const maxDefinitions = 1000

// fingerprint marks each definition by what it says, and by what all that it leads to says.
func (m *message) fingerprint() {
	refs, marks := map[string][]string{}, map[string]string{}
	mark := func(text json.RawMessage) string {
		sum := sha256.Sum256(text)
		return string(sum[:])
	}
	for name, def := range m.defs {
		marks[name] = mark(def)
		m.walk(def, func(ref string) string {
			refs[name] = append(refs[name], ref)
			return ""
		})
	}
	for name := range m.defs {
		order, seen := []string{name}, map[string]bool{name: true}
		root := "" // if it leads there, to which nothing else is equal
		all := sha256.New()
		for i := 0; i < len(order); i++ {
			def := order[i]
			for _, ref := range refs[def] {
				switch {
				case ref == "":
					root = m.name + "\x00" + mark(m.root)
				case !seen[ref]:
					seen[ref] = true
					order = append(order, ref)
				}
			}
			if i > 0 { // who refers to the first does by its component's name
				all.Write([]byte(def))
			}
			all.Write([]byte("\x00" + marks[def]))
		}
		all.Write([]byte(root))
		m.prints[name] = [sha256.Size]byte(all.Sum(nil))
	}
}

// add gives a message's schemas their names and writes them.
func (c *components) add(m *message) {
	names := make([]string, 0, len(m.defs))
	for def := range m.defs {
		names = append(names, def)
	}
	slices.Sort(names)
	var fresh []string
	for _, def := range names {
		name := componentName(def)
		if c.rival[bareName(def)] {
			name = componentName(m.service + "." + def)
		}
		name, is := c.name(name, m.prints[def])
		if m.refs[def] = name; is {
			fresh = append(fresh, def)
		}
	}
	root, _ := c.name(componentName(m.name), sha256.Sum256(append([]byte(m.name), m.root...)))
	m.name = root
	for _, def := range fresh {
		c.named[m.refs[def]] = m.rewrite(m.defs[def])
	}
	c.named[root] = m.rewrite(m.root)
}

// name finds a free name, or the one that stands for the same already.
func (c *components) name(want string, mark [sha256.Size]byte) (name string, fresh bool) {
	if name, there := c.given[meaning{want, mark}]; there {
		return name, false
	}
	name = want
	for {
		mine := meaning{name, mark}
		other, there := c.taken[bareName(name)]
		if !there || other == mine {
			c.taken[bareName(name)], c.given[meaning{want, mark}] = mine, name
			return name, !there
		}
		c.next[want] = max(c.next[want], 1) + 1
		name = want + "_" + strconv.Itoa(c.next[want])
	}
}

// rewrite writes a part of a message's schema with references to components.
func (m *message) rewrite(part json.RawMessage) json.RawMessage {
	return m.walk(part, func(def string) string {
		if def == "" {
			return componentRef + m.name
		}
		if name := m.refs[def]; name != "" {
			return componentRef + name
		}
		return ""
	})
}

// walk writes a schema anew, without definitions; to finds what becomes of a reference to one, or to the root (""). A
// reference that becomes nothing is left out.
func (m *message) walk(part json.RawMessage, to func(def string) string) json.RawMessage {
	w := schemaWriter{ref: func(ref string) string {
		def, ok := definition(ref)
		if _, known := m.defs[def]; !ok || def != "" && !known {
			return ""
		}
		return to(def)
	}}
	return w.schema(part, 0)
}

// definition reads a reference within a schema: to a definition, or to the root ("").
func definition(ref string) (name string, ok bool) {
	if ref == "#" {
		return "", true
	}
	name, ok = strings.CutPrefix(ref, "#/$defs/")
	if !ok {
		name, ok = strings.CutPrefix(ref, "#/definitions/")
	}
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", false
	}
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(name), true // RFC 6901
}

// componentName makes a name legal as a key of components.
func componentName(s string) string {
	name := strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, s)
	if name == "" {
		return "_"
	}
	return name
}
