package httpbridge

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// description gathers the operations of one document.
type description struct {
	streams    bool // the document describes items of streams, as 3.2 does
	known      map[string]*described
	components *components
	paths      map[string]oasPath
	shapes     map[string]string // of templated paths: the path that stands for all that differ in names only
	ids        map[string]bool
	plain      []*oasOperation // under subjects' paths
	routed     []*oasOperation
	services   map[string]bool
}

// described is an endpoint with its messages; a nil message may be anything.
type described struct {
	*published

	request, response *message
}

func newDescription(all []*published, streams bool) *description {
	d := &description{
		streams: streams, known: map[string]*described{}, paths: map[string]oasPath{}, shapes: map[string]string{},
		ids: map[string]bool{}, services: map[string]bool{},
	}
	var messages []*message
	for _, p := range all {
		e := &described{
			published: p,
			request:   newMessage(p.service, p.Subject+".Request", p.Request),
			response:  newMessage(p.service, p.Subject+".Reply", p.Response),
		}
		d.known[p.Subject] = e
		for _, m := range []*message{e.request, e.response} {
			if m != nil {
				messages = append(messages, m)
			}
		}
	}
	d.components = newComponents(messages)
	return d
}

// schema refers to a message; of one that may be anything it says so.
func (m *message) schema() json.RawMessage {
	if m == nil {
		return anything
	}
	return refTo(m.name)
}

// exposed adds the operations of an endpoint under its subject's path, but those that a route has.
func (d *description) exposed(p *published) {
	e := d.known[p.Subject]
	path := "/" + strings.ReplaceAll(p.Subject, ".", "/")
	o := d.operation(e, &oasBody{Required: true, Content: d.content(e, p.Kind.StreamsIn(), e.request.schema())}, nil)
	if d.put(path, http.MethodPost, o) {
		d.plain = append(d.plain, o)
	}
	if !p.ReadOnly || p.Kind.StreamsIn() {
		return
	}
	o = d.operation(e, nil, []oasParameter{{
		Name: "message", In: "query", Description: "The request.", Required: len(newFields(e.request).required) > 0,
		Content: map[string]oasMedia{jsonType: {Schema: e.request.schema()}},
	}})
	if d.put(path, http.MethodGet, o) {
		d.plain = append(d.plain, o)
	}
}

// route adds the operation of a route.
func (d *description) route(r *route) {
	e := d.known[r.subject]
	if e == nil {
		return
	}
	f := newFields(e.request)
	var params []oasParameter
	for _, name := range r.names {
		params = append(params, f.parameter(name, "path"))
	}
	var body *oasBody
	if safe(r.method) || r.method == http.MethodDelete {
		params = append(params, f.query(r.names)...)
	} else {
		body = &oasBody{Required: true, Content: d.content(e, false, f.body(r.names))}
	}
	path := templated(r)
	shape := anonymous(path)
	if first, there := d.shapes[shape]; there { // names in a path are the document's: the first route gives them
		rename(params, path, first)
		path = first
	}
	d.shapes[shape] = path
	if o := d.operation(e, body, params); d.put(path, r.method, o) {
		d.routed = append(d.routed, o)
	}
}

// anonymous takes the names from a templated path.
func anonymous(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "{}"
		}
	}
	return strings.Join(parts, "/")
}

// rename gives parameters of one path their names in another that has the same shape.
func rename(params []oasParameter, from, to string) {
	names := strings.Split(to, "/")
	for i, p := range strings.Split(from, "/") {
		for j := range params {
			if params[j].In == "path" && p == "{"+params[j].Name+"}" {
				params[j].Name = strings.Trim(names[i], "{}")
				break
			}
		}
	}
}

// put adds an operation, unless a route has the method of the path already.
func (d *description) put(path, method string, o *oasOperation) bool {
	key := strings.ToLower(method)
	if d.paths[path] == nil {
		d.paths[path] = oasPath{}
	}
	if d.paths[path][key] != nil {
		return false
	}
	o.method = key
	d.paths[path][key] = o
	d.services[o.Tags[0]] = true
	return true
}

func (d *description) tags() (tags []oasTag) {
	for name := range d.services {
		tags = append(tags, oasTag{Name: name, Description: "Endpoints of the service " + name + "."})
	}
	slices.SortFunc(tags, func(a, b oasTag) int { return strings.Compare(a.Name, b.Name) })
	return tags
}

func (d *description) operation(e *described, body *oasBody, params []oasParameter) *oasOperation {
	text := strings.TrimSpace(e.Doc)
	summary, _, _ := strings.Cut(text, "\n")
	if len(summary) > 120 {
		summary = strings.ToValidUTF8(summary[:117], "") + "…"
	}
	if summary == "" {
		summary, text = e.Subject, "The endpoint "+e.Subject+"."
	}
	return &oasOperation{
		Summary: summary, Description: text, Tags: []string{e.service}, Parameters: params, RequestBody: body,
		Responses: d.responses(e), subject: e.Subject,
	}
}

// content is what a message is sent as. A stream of requests is lines.
func (d *description) content(e *described, stream bool, schema json.RawMessage) map[string]oasMedia {
	if stream {
		return map[string]oasMedia{ndjsonType: d.items(schema)}
	}
	return one(e, schema)
}

// one is a single message: in JSON, if the endpoint takes that or does not say, else in what it takes, undescribed.
func one(e *described, schema json.RawMessage) map[string]oasMedia {
	content := map[string]oasMedia{}
	if len(e.Codecs) > 0 && !slices.Contains(e.Codecs, jsonType) {
		for _, mediaType := range e.Codecs {
			content[mediaType] = oasMedia{}
		}
		return content
	}
	content[jsonType] = oasMedia{Schema: schema}
	return content
}

// items describes a stream by its items; 3.1 has no other way than to say what one of them is.
func (d *description) items(schema json.RawMessage) oasMedia {
	if d.streams {
		return oasMedia{ItemSchema: schema}
	}
	return oasMedia{Schema: schema}
}

func (d *description) responses(e *described) map[string]oasResponse {
	good := oasResponse{Description: "The reply."}
	switch {
	case e.Kind.StreamsOut():
		good.Description = "The replies, as they come."
		good.Content = map[string]oasMedia{
			eventsType: d.items(d.event(e.response.schema())),
			ndjsonType: d.items(line(e.response.schema())),
		}
	default:
		good.Content = one(e, e.response.schema())
	}
	all := map[string]oasResponse{"200": good, "default": {Ref: "#/components/responses/Error"}}
	said := map[string][]string{"400": {"`invalid_argument`: the request can't be read"}}
	for _, declared := range e.Errors {
		status := strconv.Itoa(declared.Code.Status())
		said[status] = append(said[status], "`"+declared.Code.String()+"`: "+declared.Name)
	}
	for status, lines := range said {
		if code, _ := strconv.Atoi(status); code >= 400 && code <= 599 {
			all[status] = errorResponse(strings.Join(lines, "; ") + ".")
		}
	}
	return all
}

// line is one line of a reply: an item, or the error that ended the stream.
func line(item json.RawMessage) json.RawMessage {
	return json.RawMessage(`{"type":"object","properties":{"result":` + string(item) + `,"error":` + string(refTo("Error")) + `}}`)
}

// event is one event, whose data are JSON; in 3.1 it is what the data are.
func (d *description) event(item json.RawMessage) json.RawMessage {
	if !d.streams {
		return item
	}
	return json.RawMessage(`{"type":"object","properties":{"id":{"type":"string"},"event":{"type":"string","enum":["message","error","end"]},` +
		`"data":{"type":"string","contentMediaType":"application/json","contentSchema":` + string(item) + `}},"required":["data"]}`)
}
