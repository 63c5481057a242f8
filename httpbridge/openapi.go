package httpbridge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"postbus.example/endpoint"
)

// Info is what an OpenAPI document says of the API as a whole. Its zero value will do.
type Info struct {
	Title       string // "API" if empty
	Version     string // of the API, "0.0.0" if empty
	Description string // CommonMark

	// Contact and License are a Contact Object and a License Object, such as {"name":"MIT"}. By default none.
	Contact, License json.RawMessage

	// Servers are the URLs that paths are relative to. By default "/", the root of the host that serves the document: a bridge
	// that is mounted below a prefix, or behind a proxy that has one, must say so.
	Servers []string

	// Security tells how callers prove who they are, any one of these ways, which is what [WithAuth] asks for: Security Scheme
	// Objects by their names, {"type":"http","scheme":"bearer"}. They are told only, not enforced. By default none.
	Security map[string]json.RawMessage

	// Public lets everybody read the document. By default WithAuth guards it, like a call.
	Public bool
}

// WithOpenAPI answers /openapi.json with an OpenAPI 3.1.1 document (https://spec.openapis.org/oas/v3.1.1), and with ?v=3.2 one
// of 3.2.0, which describes the items of streams, too. It is made of what discovery says of the endpoints that are exposed or
// have routes, and were there in one of its last few answers: schemas, documentation, declared errors and kinds. Of one
// subject, what its newest version publishes is described. It has an ETag, and for the same endpoints it is the same, byte by
// byte, in every bridge.
//
// Of services of other make it says what they publish. Their schemas are taken as far as they are JSON Schema that stands on
// its own: unknown keywords, references to elsewhere and what can't be read are left out, which makes a schema allow
// more. Definitions of different endpoints that are equal are one component; those that only share a name get their
// service's name in front.
//
// While nothing is known, because the transport has no discovery or it does not answer, the answer is 503: from half a
// document, clients would be generated that lack operations. By default there is no document.
func WithOpenAPI(info Info) Option {
	return func(s *settings) {
		s.claim("WithOpenAPI", "/openapi.json")
		var errs []error
		for _, server := range info.Servers {
			if u, err := url.Parse(server); err != nil || server == "" || u.RawQuery != "" || u.Fragment != "" {
				errs = append(errs, fmt.Errorf("server %.80q is no URL of one", server))
			}
		}
		for name, scheme := range info.Security {
			if members, err := membersOf(scheme); err != nil || len(members) == 0 || !legalComponent.MatchString(name) {
				errs = append(errs, fmt.Errorf("security scheme %.80q: needs a name of A-Z a-z 0-9 . _ - and a JSON object", name))
			}
		}
		for name, object := range map[string]json.RawMessage{"contact": info.Contact, "license": info.License} {
			if _, err := membersOf(object); object != nil && err != nil {
				errs = append(errs, fmt.Errorf("the %s is no JSON object: %w", name, err))
			}
		}
		s.fault("WithOpenAPI", errors.Join(errs...))
		info.Servers, info.Security = slices.Clone(info.Servers), cloneSchemes(info.Security)
		s.openapi = &info
	}
}

func cloneSchemes(from map[string]json.RawMessage) map[string]json.RawMessage {
	to := make(map[string]json.RawMessage, len(from))
	for name, scheme := range from {
		to[name] = slices.Clone(scheme)
	}
	return to
}

var legalComponent = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// documents keeps what was made of the latest answers that differed.
type documents struct {
	info *Info

	mu        sync.Mutex
	of        *catalogue // the latest that was looked at
	all       []*published
	old, next []byte // 3.1 and 3.2 of all; nil: not made yet
}

// follow forgets the documents if there is something new.
func (d *documents) follow(seen *catalogue) {
	if seen == d.of {
		return
	}
	d.of = seen
	if all := seen.current(); !slices.EqualFunc(all, d.all, sameDescription) {
		d.all, d.old, d.next = all, nil, nil
	}
}

func sameDescription(a, b *published) bool {
	return a.Subject == b.Subject && a.service == b.service && a.Doc == b.Doc && a.Kind == b.Kind && a.ReadOnly == b.ReadOnly &&
		slices.Equal(a.Codecs, b.Codecs) && slices.Equal(a.Errors, b.Errors) &&
		bytes.Equal(a.Request, b.Request) && bytes.Equal(a.Response, b.Response)
}

// openapi answers /openapi.json.
func (x *exchange) openapi() error {
	if !safe(x.r.Method) {
		return x.method("GET, HEAD")
	}
	ctx := x.client
	if !x.documents.info.Public {
		v, err := x.admit(nil)
		if err != nil {
			return err
		}
		defer v.end()
		ctx = v.bounded
	}
	streams := false
	switch v := x.r.URL.Query().Get("v"); v {
	case "", "3.1":
	case "3.2":
		streams = true
	default:
		return wrongf("there is no document of version %.20q, but of 3.1 and 3.2", v)
	}
	data, err := x.document(ctx, streams)
	if err != nil {
		return err
	}
	x.give(jsonType, data)
	return nil
}

func (x *exchange) document(ctx context.Context, streams bool) ([]byte, error) {
	if _, err := x.directory.endpoints(ctx); err != nil {
		if errors.Is(err, errUndiscovered) {
			err = endpoint.Unavailable.Wrap(err, "the document is made of what discovery tells, and it doesn't").WithOutcome(endpoint.NotSent)
		}
		return nil, err
	}
	d := x.documents
	d.mu.Lock()
	defer d.mu.Unlock()
	d.follow(x.directory.seen.Load())
	made := &d.old
	if streams {
		made = &d.next
	}
	if *made == nil {
		*made = x.describe(d.all, streams)
	}
	return *made, nil
}

// describe writes the document.
func (b *Bridge) describe(all []*published, streams bool) []byte {
	info := b.documents.info
	all = slices.DeleteFunc(slices.Clone(all), func(p *published) bool { return !b.routes.reach(p.Subject) && reachable(p.Subject) != nil })
	w := newDescription(all, streams)
	for _, r := range b.routes.list() {
		w.route(r)
	}
	for _, p := range all {
		if b.exposed.exposes(p.Subject) && reachable(p.Subject) == nil {
			w.exposed(p)
		}
	}
	w.identify()
	doc := oasDocument{
		OpenAPI: "3.1.1",
		Info:    oasInfo{cmp.Or(info.Title, "API"), cmp.Or(info.Version, "0.0.0"), info.Description, info.Contact, info.License},
		Servers: []oasServer{{"/"}},
		Paths:   w.paths, Tags: w.tags(), Security: []map[string][]string{},
		Components: oasComponents{Schemas: w.components.named, Responses: map[string]oasResponse{"Error": errorResponse("The call failed.")}, SecuritySchemes: info.Security},
	}
	if streams {
		doc.OpenAPI = "3.2.0"
	}
	if len(info.Servers) > 0 {
		doc.Servers = nil
		for _, s := range info.Servers {
			doc.Servers = append(doc.Servers, oasServer{s})
		}
	}
	names := make([]string, 0, len(info.Security))
	for name := range info.Security {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		doc.Security = append(doc.Security, map[string][]string{name: {}})
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Errorf("httpbridge: the OpenAPI document: %w", err)) // it has nothing that JSON can't have
	}
	return data
}

// templated makes a ServeMux's path one of OpenAPI.
func templated(r *route) string {
	parts := slices.Clone(r.segments)
	for i, s := range parts {
		if name, ok := wildcard(s); ok && name == "" {
			parts[i] = ""
		} else if ok {
			parts[i] = "{" + name + "}"
		}
	}
	return "/" + strings.Join(parts, "/")
}
