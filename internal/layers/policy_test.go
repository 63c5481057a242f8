package layers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

const modulePath = "postbus.example"

// policy is the four texts, parsed.
type policy struct {
	floors     []rule
	guests     []rule
	testFloors []rule
	testGuests []rule
	below      map[string]map[string]bool // floor -> all it may import, transitively
	known      map[string]bool            // packages and patterns of this module that have a place
}

// rule is one "a < b": what may be imported, and by whom.
type rule struct{ what, who []string }

// unit is one source file as the checker sees it.
type unit struct {
	pkg     string // without the module path
	file    string
	test    bool
	imports []string
}

func parsePolicy(t testing.TB, floors, guests, testFloors, testGuests string) *policy {
	t.Helper()
	p := &policy{below: map[string]map[string]bool{}, known: map[string]bool{}}
	for _, text := range []struct {
		from string
		to   *[]rule
	}{{floors, &p.floors}, {guests, &p.guests}, {testFloors, &p.testFloors}, {testGuests, &p.testGuests}} {
		rules, err := parseRules(text.from)
		if err != nil {
			t.Fatal(err)
		}
		*text.to = rules
	}
	for _, r := range p.floors {
		for _, name := range slices.Concat(r.what, r.who) {
			p.known[name] = true
		}
	}
	for _, r := range p.testFloors { // what only tests import has its place there
		for _, name := range r.what {
			p.known[name] = true
		}
	}
	for _, pseudo := range []string{"NOTHING", "EVERYTHING"} {
		delete(p.known, pseudo)
	}
	p.close()
	return p
}

// parseRules reads "a, b < c < d, e; f < g" as the rules a, b < c; c < d, e; f < g.
func parseRules(text string) ([]rule, error) {
	var rules []rule
	var clean strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		clean.WriteString(line + "\n")
	}
	for statement := range strings.SplitSeq(clean.String(), ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		var links [][]string
		for part := range strings.SplitSeq(statement, "<") {
			names := strings.FieldsFunc(part, func(r rune) bool { return r == ',' || r == '\n' || r == '\t' || r == ' ' })
			if len(names) == 0 || len(names) != strings.Count(strings.Trim(strings.TrimSpace(part), ","), ",")+1 {
				return nil, fmt.Errorf("policy: %q: want names separated by commas, a semicolon at the end", statement)
			}
			links = append(links, names)
		}
		if len(links) < 2 {
			return nil, fmt.Errorf("policy: %q has no <", statement)
		}
		for i := 1; i < len(links); i++ {
			rules = append(rules, rule{what: links[i-1], who: links[i]})
		}
	}
	return rules, nil
}

// close fills below with the transitive closure of the floors.
func (p *policy) close() {
	for _, r := range p.floors {
		for _, who := range r.who {
			if p.below[who] == nil {
				p.below[who] = map[string]bool{}
			}
			for _, what := range r.what {
				p.below[who][what] = true
			}
		}
	}
	for grown := true; grown; {
		grown = false
		for _, below := range p.below {
			for what := range maps.Clone(below) {
				for deeper := range p.below[what] {
					if !below[deeper] {
						below[deeper], grown = true, true
					}
				}
			}
		}
	}
}

// check returns what the imports of units do against the policy, each fault once.
func (p *policy) check(units []unit) []string {
	var faults []string
	for _, u := range units {
		if !p.place(u.pkg) {
			faults = append(faults, fmt.Sprintf("package %s has no place in the house. Decide on which floor it stands: what it may import "+
				"and who may import it, and whether it must be a package at all. Then write it into floors in internal/layers", u.pkg))
			continue
		}
		for _, imp := range u.imports {
			if fault := p.fault(u, imp); fault != "" {
				faults = append(faults, u.file+": "+fault)
			}
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults)
}

func (p *policy) place(pkg string) bool {
	for name := range p.known {
		if match(name, pkg) {
			return true
		}
	}
	return false
}

func (p *policy) fault(u unit, imp string) string {
	if imp == modulePath || strings.HasPrefix(imp, modulePath+"/") {
		return p.floorFault(u, strings.TrimPrefix(strings.TrimPrefix(imp, modulePath), "/"))
	}
	return p.guestFault(u, imp)
}

func (p *policy) floorFault(u unit, imp string) string {
	switch {
	case u.test && imp == u.pkg:
		return "" // an external test imports what it tests
	case p.mayStandOn(u.pkg, imp):
		return ""
	case u.test && allowed(p.testFloors, u.pkg, "EVERYTEST", func(what string) bool { return match(what, imp) }):
		return ""
	case !p.place(imp):
		return fmt.Sprintf("%s imports %s, which has no place in the house (see the fault about that package)", u.name(), imp)
	}
	return fmt.Sprintf("%s must not import %s: it stands on the same floor or above, or is for test files only. Move what both need to a lower "+
		"floor, or take it as a parameter. The policy is not there to be changed to fix a build", u.name(), imp)
}

func (p *policy) mayStandOn(pkg, imp string) bool {
	for who, below := range p.below {
		if !match(who, pkg) {
			continue
		}
		for what := range below {
			if match(what, imp) || what == "EVERYTHING" && p.isFloor(imp) {
				return true
			}
		}
	}
	return false
}

// isFloor reports whether pkg is an importable floor: named in floors itself, not as part of the roof.
func (p *policy) isFloor(pkg string) bool {
	return slices.ContainsFunc(p.floors, func(r rule) bool { return slices.Contains(r.what, pkg) || slices.Contains(r.who, pkg) })
}

func (p *policy) guestFault(u unit, imp string) string {
	name := p.guest(imp)
	if name == "" {
		if std(imp) {
			return ""
		}
		return fmt.Sprintf("%s imports %s, a module that is not in the policy. Decide whether it is worth it to everybody who compiles it "+
			"(std first; a leaf package if it is heavy; test files only if it can be), then write into guests or testGuests in "+
			"internal/layers who may import it", u.name(), imp)
	}
	named := func(what string) bool { return what == name }
	if allowed(p.guests, u.pkg, "", named) || u.test && allowed(p.testGuests, u.pkg, "EVERYTEST", named) {
		return ""
	}
	return fmt.Sprintf("%s must not import %s: %s is a guest of %s", u.name(), imp, name, strings.Join(p.hosts(name), ", "))
}

// guest returns the longest name of a guest that imp belongs to, "" if none does.
func (p *policy) guest(imp string) string {
	longest := ""
	for _, r := range slices.Concat(p.guests, p.testGuests) {
		for _, what := range r.what {
			if match(what+"/...", imp) && len(what) > len(longest) {
				longest = what
			}
		}
	}
	return longest
}

func (p *policy) hosts(guest string) []string {
	var hosts []string
	for _, r := range p.guests {
		if slices.Contains(r.what, guest) && !slices.Contains(r.who, "NOBODY") {
			hosts = append(hosts, r.who...)
		}
	}
	for _, r := range p.testGuests {
		if slices.Contains(r.what, guest) {
			for _, who := range r.who {
				hosts = append(hosts, "tests of "+strings.Replace(who, "EVERYTEST", "every package", 1))
			}
		}
	}
	if hosts == nil {
		return []string{"nobody"}
	}
	return hosts
}

// allowed reports whether one of the rules lets pkg import what fits.
func allowed(rules []rule, pkg, everybody string, fits func(what string) bool) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		return slices.ContainsFunc(r.what, fits) &&
			slices.ContainsFunc(r.who, func(who string) bool { return who == everybody || match(who, pkg) })
	})
}

// match is the go command's: "a/..." is a and all below it.
func match(pattern, path string) bool {
	head, tree := strings.CutSuffix(pattern, "/...")
	return path == head || tree && strings.HasPrefix(path, head+"/")
}

// std reports whether a path belongs to the standard library: no dot in its first element.
func std(path string) bool {
	head, _, _ := strings.Cut(path, "/")
	return !strings.Contains(head, ".")
}

func roof(pkg string) bool { return match("cmd/...", pkg) || match("examples/...", pkg) }

func (u unit) name() string {
	if u.test {
		return "a test of " + u.pkg
	}
	return u.pkg
}
