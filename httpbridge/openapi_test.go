package httpbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

var update = flag.Bool("update", false, "write the golden files")

type address struct {
	Street string `json:"street" doc:"with the number"`
}

type profile struct {
	ID        string             `json:"id"`
	Age       *int               `json:"age,omitempty"`
	Addresses []address          `json:"addresses"`
	Friends   map[string]profile `json:"friends,omitempty"`
}

var errUnknown = errors.New("no such profile")

type profileQuery struct {
	ID     string   `json:"id"`
	Limit  int      `json:"limit,omitempty" doc:"at most so many"`
	Fields []string `json:"fields,omitempty"`
	Deep   *address `json:"deep,omitempty"`
}

func getProfile(_ context.Context, q *profileQuery) (*profile, error) { return &profile{ID: q.ID}, nil }
func putProfile(_ context.Context, p *profile) (*profile, error)      { return p, nil }

func watch(context.Context, *profileQuery) iter.Seq2[*profile, error] {
	return func(func(*profile, error) bool) {}
}

func collect(context.Context, iter.Seq2[*profile, error]) (*nothing, error) { return &nothing{}, nil }

// documented serves one endpoint of each sort, and routes to some of them.
func documented(t testing.TB, opts ...httpbridge.Option) *site {
	t.Helper()
	m := newMux(t)
	serve(t, m, "profiles.get", endpoint.New(getProfile, endpoint.ReadOnly(), endpoint.Doc("returns one profile\n\nAnd more of it."),
		endpoint.ErrorValue("profiles.unknown", endpoint.NotFound, errUnknown)))
	serve(t, m, "profiles.put", endpoint.New(putProfile))
	serve(t, m, "profiles.watch", endpoint.NewServerStream(watch))
	serve(t, m, "profiles.collect", endpoint.NewClientStream(collect))
	serve(t, m, "hidden.x", endpoint.New(putProfile))
	opts = append([]httpbridge.Option{
		httpbridge.Expose("svc.add", "svc.echo", "profiles.get", "profiles.watch", "profiles.collect"),
		httpbridge.Route("GET /v1/profiles/{id}", "profiles.get"), httpbridge.Route("PUT /v1/profiles/{ID}", "profiles.put"),
		httpbridge.Route("GET /v1/files/{path...}", "svc.echo"), httpbridge.Route("GET /v1/gone", "gone.x"),
	}, opts...)
	return start(t, m, opts...)
}

func TestOpenAPI_golden(t *testing.T) {
	for _, version := range []string{"3.1", "3.2"} {
		s := documented(t, httpbridge.WithOpenAPI(httpbridge.Info{
			Title: "Profiles", Version: "1.2.3", Description: "All about people.",
			Security: map[string]json.RawMessage{"bearer": json.RawMessage(`{"type":"http","scheme":"bearer"}`)},
		}))
		r := s.do(t, http.MethodGet, "/openapi.json?v="+version, "")
		assert.Equal(t, r.status, 200, r.body)
		var doc any
		assert.NoError(t, json.Unmarshal([]byte(r.body), &doc))
		indented, err := json.MarshalIndent(doc, "", "  ")
		assert.NoError(t, err)
		file := "testdata/openapi-" + version + ".json"
		if *update {
			assert.NoError(t, os.WriteFile(file, append(indented, '\n'), 0o644))
		}
		want, err := os.ReadFile(file)
		assert.NoError(t, err)
		assert.Equal(t, string(indented)+"\n", string(want), "write it anew with -update")
		sound(t, r.body)
		for range 3 {
			assert.Equal(t, documentedAgain(t, s, version), r.body, "the same each time")
		}
	}
}

func documentedAgain(t *testing.T, s *site, version string) string {
	t.Helper()
	return s.do(t, http.MethodGet, "/openapi.json?v="+version, "").body
}

// sound asserts what generators rely on: references lead somewhere, and names are unique and legal.
func sound(t *testing.T, body string) map[string]any {
	t.Helper()
	var doc map[string]any
	assert.NoError(t, json.Unmarshal([]byte(body), &doc))
	assert.True(t, utf8.ValidString(body), "UTF-8")
	once(t, json.NewDecoder(strings.NewReader(body)))
	var walk func(v any, at string)
	walk = func(v any, at string) {
		switch v := v.(type) {
		case map[string]any:
			if ref, is := v["$ref"].(string); is && !strings.HasSuffix(at, "/properties") {
				if find(doc, ref) == nil {
					t.Errorf("%s: %q leads nowhere", at, ref)
				}
			}
			for name, member := range v {
				walk(member, at+"/"+name)
			}
		case []any:
			for i, e := range v {
				walk(e, fmt.Sprint(at, "/", i))
			}
		}
	}
	walk(doc, "")
	ids := map[string]bool{}
	for path, item := range doc["paths"].(map[string]any) {
		for method, o := range item.(map[string]any) {
			id := o.(map[string]any)["operationId"].(string)
			assert.True(t, !ids[strings.ToLower(id)], "operationId "+id+" of "+method+" "+path+" is unique")
			ids[strings.ToLower(id)] = true
		}
	}
	plain := strings.NewReplacer(".", "", "_", "", "-", "")
	bare := map[string]string{}
	for name := range doc["components"].(map[string]any)["schemas"].(map[string]any) {
		assert.Equal(t, bare[strings.ToLower(plain.Replace(name))], "", "generators take "+name+" for another")
		bare[strings.ToLower(plain.Replace(name))] = name
		assert.Equal(t, strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"), "")
	}
	return doc
}

// once asserts that no object has a name twice.
func once(t *testing.T, d *json.Decoder) {
	t.Helper()
	first, err := d.Token()
	assert.NoError(t, err)
	if first != json.Delim('{') && first != json.Delim('[') {
		return
	}
	names := map[json.Token]bool{}
	for d.More() {
		if first == json.Delim('{') {
			name, err := d.Token()
			assert.NoError(t, err)
			assert.True(t, !names[name], fmt.Sprint(name, " once"))
			names[name] = true
		}
		once(t, d)
	}
	_, err = d.Token()
	assert.NoError(t, err)
}

// find follows a local reference.
func find(doc any, ref string) any {
	pointer, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil
	}
	for name := range strings.SplitSeq(pointer, "/") {
		object, ok := doc.(map[string]any)
		if !ok {
			return nil
		}
		doc = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)]
	}
	return doc
}

func TestOpenAPI_isCachedAndConditional(t *testing.T) {
	s := documented(t, httpbridge.WithOpenAPI(httpbridge.Info{}))
	r := s.do(t, http.MethodGet, "/openapi.json", "")
	tag := r.header.Get("ETag")
	assert.True(t, tag != "", "an ETag")
	assert.Equal(t, r.header.Get("Content-Type"), "application/json")
	assert.Equal(t, s.do(t, http.MethodGet, "/openapi.json", "", "If-None-Match", tag).status, 304)
	assert.Equal(t, s.do(t, http.MethodGet, "/openapi.json?v=3.2", "", "If-None-Match", tag).status, 200)
	head := s.do(t, http.MethodHead, "/openapi.json", "")
	assert.Equal(t, head.body, "")
	assert.Equal(t, head.header.Get("ETag"), tag)
	other := documented(t, httpbridge.WithOpenAPI(httpbridge.Info{}))
	assert.Equal(t, other.do(t, http.MethodGet, "/openapi.json", "").body, r.body, "another bridge")
	failed(t, s.do(t, http.MethodGet, "/openapi.json?v=2.0", ""), 400, endpoint.InvalidArgument)
	failed(t, s.post(t, "/openapi.json", "{}"), 405, endpoint.Unknown)
	failed(t, documented(t).do(t, http.MethodGet, "/openapi.json", ""), 404, endpoint.Unimplemented)
}

// A document is made anew when what is published changes, and the old one is as good as long as it doesn't.
func TestOpenAPI_followsDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ep := endpoint.EndpointInfo{Subject: "a.x", Doc: "first"}
		l := &listing{all: []endpoint.Instance{instance("a", "1.0.0", ep)}}
		b := httpbridge.New(l, silence, httpbridge.Expose("a.*"), httpbridge.WithOpenAPI(httpbridge.Info{}))
		get := func() string {
			w := httptest.NewRecorder()
			b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", http.NoBody))
			assert.Equal(t, w.Code, 200)
			return w.Body.String()
		}
		first := get()
		assert.Contains(t, first, "first")
		time.Sleep(6 * time.Second)
		assert.Equal(t, get(), first)
		ep.Doc = "second"
		l.all = []endpoint.Instance{instance("a", "1.0.0", ep)}
		assert.Equal(t, get(), first, "discovery is not asked at each request")
		time.Sleep(6 * time.Second)
		assert.Contains(t, get(), "second")
		l.all = nil
		for range 3 { // an answer may be incomplete
			time.Sleep(6 * time.Second)
			get()
		}
		assert.True(t, !strings.Contains(get(), "a/x"), "what is gone is not described")
	})
}

func TestOpenAPI_withoutDiscovery(t *testing.T) {
	s := start(t, silent{newMux(t)}, httpbridge.Expose("svc.add"), httpbridge.WithOpenAPI(httpbridge.Info{}))
	msg := failed(t, s.do(t, http.MethodGet, "/openapi.json", ""), 503, endpoint.Unavailable)
	assert.Contains(t, msg, "discovery")
}

func TestOpenAPI_isGuarded(t *testing.T) {
	auth := httpbridge.WithAuth(func(*http.Request) (context.Context, error) { return nil, endpoint.Unauthenticated.New("who?") })
	failed(t, documented(t, auth, httpbridge.WithOpenAPI(httpbridge.Info{})).do(t, http.MethodGet, "/openapi.json", ""), 401, endpoint.Unauthenticated)
	assert.Equal(t, documented(t, auth, httpbridge.WithOpenAPI(httpbridge.Info{Public: true})).do(t, http.MethodGet, "/openapi.json", "").status, 200)
}

func TestOpenAPI_faults(t *testing.T) {
	for _, tc := range []struct {
		info httpbridge.Info
		want string
	}{
		{httpbridge.Info{Servers: []string{""}}, `server ""`},
		{httpbridge.Info{License: json.RawMessage(`"MIT"`)}, `the license is no JSON object`},
		{httpbridge.Info{Servers: []string{"https://x.example/?a"}}, `server "https://x.example/?a"`},
		{httpbridge.Info{Security: map[string]json.RawMessage{"a b": json.RawMessage(`{"type":"http"}`)}}, `security scheme "a b"`},
		{httpbridge.Info{Security: map[string]json.RawMessage{"a": json.RawMessage(`[]`)}}, `security scheme "a"`},
	} {
		err := httpbridge.New(newMux(t), silence, httpbridge.WithOpenAPI(tc.info)).Err()
		assert.True(t, err != nil, tc.want)
		assert.Contains(t, err.Error(), "WithOpenAPI: ", tc.want)
	}
	err := httpbridge.New(newMux(t), silence, httpbridge.WithOpenAPI(httpbridge.Info{}), httpbridge.WithOpenAPI(httpbridge.Info{Title: "x"}),
		httpbridge.Route("GET /openapi.json", "svc.x")).Err()
	assert.Contains(t, err.Error(), "WithOpenAPI: the bridge answers /openapi.json already", "the bridge answers /openapi.json itself, by WithOpenAPI")
}

// Definitions of the same name: equal ones are one component, others get their services' names.
func TestOpenAPI_definitionsOfTheSameName(t *testing.T) {
	schema := func(def string) json.RawMessage {
		return json.RawMessage(`{"properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":` + def + `,"Error":{"type":"null"}}}`)
	}
	ep := func(subject, def string) endpoint.EndpointInfo {
		return endpoint.EndpointInfo{Subject: subject, Request: schema(def)}
	}
	l := &listing{all: []endpoint.Instance{
		instance("one", "1.0.0", ep("a.x", `{"type":"string"}`), ep("a.y", `{"type":"string"}`)),
		instance("three", "1.0.0", endpoint.EndpointInfo{Subject: "a.z", Request: json.RawMessage(`{"$defs":{"AXrequest":{},"a":{"type":"string"}},"not":{"$ref":"#/$defs/AXrequest"}}`)}),
		instance("two", "1.0.0", ep("b.x", `{"type":"integer"}`), ep("b.y", `{"$ref":"#"}`), ep("b.z", `{"$ref":"#"}`)),
	}}
	s := start(t, l, httpbridge.Expose("a.*", "b.*"), httpbridge.WithOpenAPI(httpbridge.Info{}))
	doc := sound(t, s.do(t, http.MethodGet, "/openapi.json", "").body)
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	text := func(name string) string { out, _ := json.Marshal(schemas[name]); return string(out) }
	assert.Equal(t, text("one.A"), `{"type":"string"}`)
	assert.Equal(t, text("two.A"), `{"type":"integer"}`)
	assert.Equal(t, text("two.A_2"), `{"$ref":"#/components/schemas/b.y.Request"}`)
	assert.Equal(t, text("two.A_3"), `{"$ref":"#/components/schemas/b.z.Request"}`)
	assert.Equal(t, text("a.y.Request"), `{"properties":{"a":{"$ref":"#/components/schemas/one.A"}}}`)
	assert.Contains(t, text("Error"), "resource_exhausted")
	assert.Equal(t, text("one.Error"), `{"type":"null"}`)
}

// junk is what services of other make may publish as a schema.
var junk = []string{
	`null`, `true`, `false`, `1`, `"x"`, `[]`, `{`, ``, "\xff", `{"type":"any"}`, `{"type":[]}`, `{"type":["string","string"]}`, `{"type":{}}`,
	`{"properties":[]}`, `{"properties":{"a":1,"b":null,"c":false,"$ref":{"type":"string"}}}`, `{"required":true}`, `{"required":["a","a"]}`, `{"required":[1]}`,
	`{"$ref":"https://example.com/a.json"}`, `{"$ref":"#/$defs/none"}`, `{"$ref":"#/properties/a"}`, `{"$ref":7}`, `{"$ref":"#"}`, `{"$ref":"a.json#/x"}`, `{"$dynamicRef":"#x"}`,
	`{"$id":"https://example.com/x","$schema":"http://json-schema.org/draft-04/schema#","definitions":{"a b/c":{"type":"null"}},"items":{"$ref":"#/definitions/a b~1c"}}`,
	`{"$defs":{"":{},"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}`, `{"$defs":[1]}`, `{"$defs":{"é<>&":{}},"anyOf":[{"$ref":"#/$defs/%C3%A9<>&"}]}`,
	`{"minimum":"1","maxLength":-1,"multipleOf":0,"pattern":1,"exclusiveMinimum":true,"enum":{},"uniqueItems":1,"allOf":[],"oneOf":{},"anyOf":[1,true]}`,
	`{"items":[{"type":"string"}],"not":5,"if":[],"const":{"$ref":"#/x"},"default":{"$ref":"y"},"enum":[{"$ref":"z"}],"discriminator":1,"xml":2,"x-a":3,"externalDocs":"x"}`,
	`{"a":1,"a":2}`, `{"default":{"a":1,"a":2},"enum":[{"b":1.00000000000000000001,"b":1}]}`, "{\"description\":\"\xff\"}", `{"description":"<script>alert(1)</script>\u2028","title":1}`,
	`{"items":` + strings.Repeat(`{"items":`, 300) + `{}` + strings.Repeat(`}`, 301), strings.Repeat(`{"not":`, 12000),
}

func TestOpenAPI_foreignSchemas(t *testing.T) {
	for _, schema := range junk {
		l := &listing{all: []endpoint.Instance{instance("js", "1.0.0",
			endpoint.EndpointInfo{Subject: "js.x", Request: json.RawMessage(schema), Response: json.RawMessage(schema), ReadOnly: true, Doc: "\xff\u2028\n"},
			endpoint.EndpointInfo{Subject: "js.{y}", Request: json.RawMessage(schema)},
			endpoint.EndpointInfo{Subject: "js.s", Response: json.RawMessage(schema), Kind: endpoint.ServerStreamKind, Codecs: []string{"text/x"}},
			endpoint.EndpointInfo{Subject: "js.gather", Response: json.RawMessage(schema), Kind: endpoint.Kind(77), Errors: []endpoint.DeclaredError{{Name: "x", Code: 99}, {Name: "ok"}}},
		)}}
		s := start(t, l, httpbridge.Expose("js.*"), httpbridge.WithOpenAPI(httpbridge.Info{}), httpbridge.Route("GET /js/{a}", "js.x"), httpbridge.Route("PUT /js/{a}", "js.x"))
		for _, version := range []string{"3.1", "3.2"} {
			r := s.do(t, http.MethodGet, "/openapi.json?v="+version, "")
			assert.Equal(t, r.status, 200, schema[:min(80, len(schema))], r.body)
			sound(t, r.body)
			assert.True(t, !strings.Contains(r.body, "_y_"), "what no path leads to is left out")
		}
	}
}

func FuzzOpenAPI(f *testing.F) {
	for _, schema := range junk {
		f.Add(schema)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		l := &listing{all: []endpoint.Instance{instance("js", "1.0.0", endpoint.EndpointInfo{
			Subject: "js.x", Request: json.RawMessage(schema), Response: json.RawMessage(schema), ReadOnly: true,
		})}}
		s := start(t, l, httpbridge.Expose("js.*"), httpbridge.WithOpenAPI(httpbridge.Info{}), httpbridge.Route("PUT /js/{a}", "js.x"))
		sound(t, s.do(t, http.MethodGet, "/openapi.json", "").body)
	})
}
