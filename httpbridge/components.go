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
	for name := range m.defs {
		m.prints[name] = m.fingerprint(name)
	}
	return m
}

// fingerprint is of a definition and of all that it leads to.
func (m *message) fingerprint(name string) [sha256.Size]byte {
	seen := []string{name}
	var all []member
	var root json.RawMessage // if it leads there, to which nothing else is equal
	for i := 0; i < len(seen); i++ {
		def := m.defs[seen[i]]
		all = append(all, member{seen[i], quote(string(def))})
		m.walk(def, func(ref string) string {
			if ref == "" {
				root = m.root
			} else if _, ok := m.defs[ref]; ok && !slices.Contains(seen, ref) {
				seen = append(seen, ref)
			}
			return ""
		})
		if i == 0 {
			all[0].name = "" // who refers to it does by its component's name
		}
	}
	if root != nil {
		all = append(all, member{m.name, quote(string(root))})
	}
	return sha256.Sum256(writeObject(all))
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
	name = want
	for i := 2; ; i++ {
		other, there := c.taken[bareName(name)]
		mine := meaning{name, mark}
		if !there {
			c.taken[bareName(name)] = mine
			return name, true
		}
		if other == mine {
			return name, false
		}
		name = want + "_" + strconv.Itoa(i)
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
