package httpbridge

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"postbus.example/endpoint"
)

// published is what the instances of an endpoint say of it. It is immutable.
type published struct {
	endpoint.EndpointInfo

	service string
	version string
	round   int // the latest answer that had it
}

// catalogue is what is known of the exposed endpoints, by subject. It is immutable: each answer makes the next one, so that
// requests read it without a lock. Its zero value knows nothing.
type catalogue struct {
	entries map[string]*published
	round   int // how many answers it comes of
}

const (
	// maxKnown and maxTold bound its memory: whoever is on the bus may say what they like. Of what is said beyond so many
	// bytes, it is known only that it is there, and of which kind.
	maxKnown = 16384
	maxTold  = 64 << 20

	// missable is how many answers in a row an endpoint may be missing from until it counts as gone: an answer may be
	// incomplete. What is gone is still known: a call of it is 503, not 404.
	missable = 3
)

// next returns the catalogue after one more answer.
func (c *catalogue) next(instances []endpoint.Instance, exposes func(string) bool) *catalogue {
	n := &catalogue{entries: maps.Clone(c.entries), round: c.round + 1}
	if n.entries == nil {
		n.entries = map[string]*published{}
	}
	if len(n.entries) >= maxKnown { // whose names change with each deploy make room again
		maps.DeleteFunc(n.entries, func(_ string, p *published) bool { return n.round-p.round > missable })
	}
	told := n.told()
	for _, i := range instances {
		for _, e := range i.Endpoints {
			old := n.entries[e.Subject]
			if old == nil && len(n.entries) >= maxKnown || !exposes(e.Subject) {
				continue
			}
			p := merge(old, &published{EndpointInfo: e, service: i.Service, version: i.Version, round: n.round})
			told = n.put(p, told)
		}
	}
	return n
}

// told is the size in bytes of what is kept of what was said.
func (c *catalogue) told() int {
	sum := 0
	for _, p := range c.entries {
		sum += p.told()
	}
	return sum
}

func (p *published) told() int {
	if p == nil {
		return 0
	}
	sum := len(p.Doc) + len(p.Request) + len(p.Response)
	for k, v := range p.Metadata {
		sum += len(k) + len(v)
	}
	return sum
}

// put keeps an entry, or as much of it as there is room for, and returns what told is then.
func (c *catalogue) put(p *published, told int) int {
	if told -= c.entries[p.Subject].told(); told+p.told() > maxTold {
		bare := endpoint.EndpointInfo{Name: p.Subject, Subject: p.Subject, Kind: p.Kind, Idempotent: p.Idempotent, ReadOnly: p.ReadOnly, Timeout: p.Timeout}
		p = &published{EndpointInfo: bare, service: p.service, version: p.version, round: p.round}
	}
	c.entries[p.Subject] = p
	return told + p.told()
}

// merge decides between what two instances say, or two answers. The newest version is the one that is described; what may be
// read without effect is only what all instances say so of, while versions are mixed.
func merge(old, p *published) *published {
	if old == nil {
		return p
	}
	keepSchemas(old, p)
	if old.round < p.round {
		return p
	}
	safe, idempotent := old.ReadOnly && p.ReadOnly, old.Idempotent && p.Idempotent
	if compareVersions(old.version, p.version) >= 0 {
		p = old
	}
	if p.ReadOnly == safe && p.Idempotent == idempotent {
		return p
	}
	n := *p
	n.ReadOnly, n.Idempotent = safe, idempotent
	return &n
}

// keepSchemas gives p the schemas that were fetched before for the same endpoint.
func keepSchemas(old, p *published) {
	if !maps.Equal(old.Metadata, p.Metadata) {
		return
	}
	if p.Request == nil {
		p.Request = old.Request
	}
	if p.Response == nil {
		p.Response = old.Response
	}
}

// current returns what counts as there, by subject.
func (c *catalogue) current() []*published {
	out := make([]*published, 0, len(c.entries))
	for _, p := range c.entries {
		if p.round > c.round-missable {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *published) int { return strings.Compare(a.Subject, b.Subject) })
	return out
}

// incomplete returns the services that have schemas which are told by their hash alone, until they are asked for by name
// (docs/protocol.md).
func (c *catalogue) incomplete() []string {
	var out []string
	for _, p := range c.current() {
		byHash := func(v string) bool { return strings.HasPrefix(v, "sha256:") }
		if (p.Request == nil || p.Response == nil) && slices.ContainsFunc(slices.Collect(maps.Values(p.Metadata)), byHash) {
			out = append(out, p.service)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// filled returns the catalogue with the schemas that an answer has.
func (c *catalogue) filled(instances []endpoint.Instance) *catalogue {
	n := &catalogue{entries: maps.Clone(c.entries), round: c.round}
	told := n.told()
	for _, i := range instances {
		for _, e := range i.Endpoints {
			if p := n.entries[e.Subject]; p != nil && maps.Equal(p.Metadata, e.Metadata) {
				filled := *p
				keepSchemas(&published{EndpointInfo: e}, &filled)
				told = n.put(&filled, told)
			}
		}
	}
	return n
}

// compareVersions orders semantic versions by their numbers; a pre-release, whatever it is called, comes before its release.
func compareVersions(a, b string) int {
	left, right := numbers(a), numbers(b)
	if c := slices.Compare(left, right); c != 0 {
		return c
	}
	pre := func(v string) int { return strings.IndexByte(v, '-') }
	switch p, q := pre(a), pre(b); {
	case p < 0 && q >= 0:
		return 1
	case p >= 0 && q < 0:
		return -1
	}
	return cmp.Compare(a, b)
}

func numbers(version string) []int {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	core, _, _ = strings.Cut(core, "+")
	var out []int
	for part := range strings.SplitSeq(core, ".") {
		n, _ := strconv.Atoi(part) // a version that is none counts as 0
		out = append(out, n)
	}
	return out
}
