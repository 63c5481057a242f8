package httpbridge_test

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// userRequest has a field of each sort that text can become, and some that it can't.
type userRequest struct {
	ID     int64             `json:"id,omitempty"`
	Name   string            `json:"name,omitempty"`
	Ratio  float64           `json:"ratio,omitempty"`
	On     *bool             `json:"on,omitempty"`
	Max    *uint8            `json:"max,omitempty"`
	Tags   []string          `json:"tags,omitempty"`
	Nums   []int             `json:"nums,omitempty"`
	Quoted int               `json:"quoted,string,omitempty"`
	Any    any               `json:"any,omitempty"`
	Deep   *userRequest      `json:"deep,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Plain  int               // no tag
	Blob   []byte            `json:"blob,omitempty"`
	Path   string            `json:"path,omitempty"`
}

func user(_ context.Context, r *userRequest) (*userRequest, error) { return r, nil }

// routed serves users.get, which returns its request, and svc.echo, of which no schema is known.
func routed(t *testing.T, opts ...httpbridge.Option) *site {
	t.Helper()
	m := newMux(t)
	serve(t, m, "users.get", endpoint.New(user))
	return start(t, m, opts...)
}

func TestRoute_converts(t *testing.T) {
	s := routed(t, httpbridge.Route("GET /v1/users/{id}", "users.get"), httpbridge.Route("GET /raw/{name}", "svc.echo"),
		httpbridge.Route("GET /files/{path...}", "svc.echo"))
	for _, tc := range []struct{ path, want string }{
		{"/v1/users/7", `{"id":7,"Plain":0}`},
		{"/v1/users/9007199254740993", `{"id":9007199254740993,"Plain":0}`},
		{"/v1/users/-1?name=J%C3%B6rg%20%22x%22&ratio=1e3&on=true&max=255", `{"id":-1,"name":"Jörg \"x\"","ratio":1000,"on":true,"max":255,"Plain":0}`},
		{"/v1/users/7?tags=a&tags=b,c&nums=1&nums=-2", `{"id":7,"tags":["a","b,c"],"nums":[1,-2],"Plain":0}`},
		{"/v1/users/7?tags=one", `{"id":7,"tags":["one"],"Plain":0}`},
		{"/v1/users/7?name=", `{"id":7,"Plain":0}`},
		{"/v1/users/7?quoted=5", `{"id":7,"quoted":"5","Plain":0}`},
		{"/v1/users/7?any=5", `{"id":7,"any":"5","Plain":0}`},
		{"/v1/users/7?plain=5&NAME=x", `{"id":7,"name":"x","Plain":5}`},
		{"/v1/users/7?blob=AQI%3D", `{"id":7,"Plain":0,"blob":"AQI="}`},
		{"/v1/users/7?unknown=5", `{"id":7,"Plain":0}`},
		{"/raw/7?b=2&a=1&a=3", `{"name":"7","a":["1","3"],"b":"2"}`},
		{"/raw/a%2Fb%20%2e%2e?x=%00", `{"name":"a/b ..","x":"\u0000"}`},
		{"/files/a/b/c.txt", `{"path":"a/b/c.txt"}`},
		{"/files/a%2Fb/c", `{"path":"a/b/c"}`},
		{"/files/", `{"path":""}`},
	} {
		r := s.do(t, http.MethodGet, tc.path, "")
		assert.Equal(t, r.status, 200, tc.path, r.body)
		assert.Equal(t, r.body, tc.want, tc.path)
	}
}

func TestRoute_refusesWhatDoesNotConvert(t *testing.T) {
	s := routed(t, httpbridge.Route("GET /v1/users/{id}", "users.get"), httpbridge.Route("PUT /v1/users/{id}", "users.get"),
		httpbridge.Route("GET /raw/{name}", "svc.echo"))
	for _, tc := range []struct{ path, want string }{
		{"/v1/users/x", `field "id" of the path: "x" is not of type integer`},
		{"/v1/users/1.5", `"id"`},
		{"/v1/users/1e3", `"id"`},
		{"/v1/users/%2B1", `"id"`},
		{"/v1/users/01", `"id"`},
		{"/v1/users/NaN", `"id"`},
		{"/v1/users/1%20", `"id"`},
		{"/v1/users/%20", `"id"`},
		{"/v1/users/1%0A", `"id"`},
		{"/v1/users/1?on=1", `field "on" of the query: "1" is not of type boolean`},
		{"/v1/users/1?ratio=NaN", `"ratio"`},
		{"/v1/users/1?ratio=Infinity", `"ratio"`},
		{"/v1/users/1?ratio=", `"ratio"`},
		{"/v1/users/1?nums=1&nums=x", `field "nums" of the query: "x" is not of type integer`},
		{"/v1/users/1?name=a&name=b", `field "name" is given 2 times in the query, but is no array`},
		{"/v1/users/1?id=1", `field "id" is given twice, in the path and in the query`},
		{"/v1/users/1?ID=1", `field "ID" is given twice, in the path and in the query`},
		{"/v1/users/1?name=a&NAME=b", `given twice in the query`},
		{"/v1/users/1?deep=x", `field "deep" of the query: it is of type object, which can be given in a body only`},
		{"/v1/users/1?labels=x", `"labels"`},
		{"/v1/users/1?name=%FF", `field "name" of the query is not UTF-8`},
		{"/raw/%FF", `field "name" of the path is not UTF-8`},
		{"/v1/users/1?a=%", `the query can't be read`},
		{"/v1/users/1?a;b", `the query can't be read`},
	} {
		msg := failed(t, s.do(t, http.MethodGet, tc.path, ""), 400, endpoint.InvalidArgument)
		assert.Contains(t, tc.path+": "+msg, tc.want)
	}
	failed(t, s.do(t, http.MethodGet, "/raw/x?"+strings.Repeat("a", 8<<10), ""), 414, endpoint.InvalidArgument)
}

func TestRoute_mergesTheBody(t *testing.T) {
	s := routed(t, httpbridge.Route("PUT /v1/users/{id}", "users.get"), httpbridge.Route("PATCH /raw/{id}", "svc.echo"),
		httpbridge.Route("POST /all", "svc.echo"), httpbridge.Route("DELETE /v1/users/{id}", "users.get"))
	j := []string{"Content-Type", "application/json"}
	r := s.do(t, http.MethodPut, "/v1/users/7?tags=x", `{"name":"n", "deep":{"id":1,"id":2}}`, j...)
	assert.Equal(t, r.body, `{"id":7,"name":"n","tags":["x"],"deep":{"id":2,"Plain":0},"Plain":0}`)
	r = s.do(t, http.MethodPatch, "/raw/7", ` { "big" : 1.10, "u":"\u00e9" , "n":[ 1 ] } `, j...)
	assert.Equal(t, r.body, `{"id":"7","big":1.10,"u":"\u00e9","n":[ 1 ]}`)
	r = s.do(t, http.MethodDelete, "/v1/users/7", "")
	assert.Equal(t, r.body, `{"id":7,"Plain":0}`)
	r = s.do(t, http.MethodPost, "/all", "\x01\x02", "Content-Type", "application/octet-stream")
	assert.Equal(t, r.body, "\x01\x02")
	assert.Equal(t, r.header.Get("Content-Type"), "application/octet-stream")

	for body, want := range map[string]string{
		`{"id":8}`:             `field "id" is given twice, in the path and in the body`,
		`{"Id":8}`:             `field "Id" is given twice, in the path and in the body`,
		`{"\u0069d":8}`:        `field "id" is given twice, in the path and in the body`,
		`{"ıd":8,"a":1,"a":2}`: `it has "a" twice`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"j":2}`: `it has "j" twice`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"a":2}`:             `it has "a" twice`,
		`[]`:                     `it is not a JSON object`,
		`null`:                   `it is not a JSON object`,
		`{"a":1}{}`:              `there is more after the object (at offset 7)`,
		`{"a":1,}`:               `malformed JSON`,
		`{"a":`:                  `malformed JSON: it ends too early`,
		`{"a":NaN}`:              `malformed JSON`,
		strings.Repeat("[", 1e5): `it is not a JSON object`,
		`{"a":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}`: `malformed JSON`,
	} {
		msg := failed(t, s.do(t, http.MethodPut, "/v1/users/7", body, j...), 400, endpoint.InvalidArgument)
		assert.Contains(t, msg, want)
	}
	failed(t, s.do(t, http.MethodPatch, "/raw/7", "x", "Content-Type", "application/cbor"), 415, endpoint.Unknown)
}

// No page may call us behind its user's back: what a browser sends without asking is refused, but for GET.
func TestRoute_forgedRequests(t *testing.T) {
	s := routed(t, httpbridge.Route("POST /users/{id}", "users.get"), httpbridge.Route("DELETE /users/{id}", "users.get"),
		httpbridge.Route("GET /users/{id}", "users.get"))
	failed(t, s.do(t, http.MethodPost, "/users/1", ""), 415, endpoint.Unknown)
	failed(t, s.do(t, http.MethodPost, "/users/1", "{}", "Content-Type", "text/plain"), 415, endpoint.Unknown)
	failed(t, s.do(t, http.MethodDelete, "/users/1", "{}", "Content-Type", "text/plain"), 415, endpoint.Unknown)
	failed(t, s.do(t, http.MethodDelete, "/users/1", "", "Sec-Fetch-Site", "cross-site"), 403, endpoint.PermissionDenied)
	failed(t, s.do(t, http.MethodGet, "/users/1", "{}"), 400, endpoint.InvalidArgument)
	assert.Equal(t, s.do(t, http.MethodGet, "/users/1", "", "Sec-Fetch-Site", "cross-site").status, 200)
	assert.Equal(t, s.post(t, "/users/1", "").body, `{"id":1,"Plain":0}`)
}

func TestRoute_paths(t *testing.T) {
	s := routed(t, httpbridge.Expose("svc.echo", "v1.*"),
		httpbridge.Route("GET /v1/users/{id}", "users.get"), httpbridge.Route("DELETE /v1/users/{id}", "users.get"),
		httpbridge.Route("GET /v1/users/me", "svc.ping"), httpbridge.Route("GET /svc/echo", "svc.ping"),
		httpbridge.Route("GET /v1/gone", "users.gone"), httpbridge.Route("GET /dir/", "svc.echo"), httpbridge.Route("GET /{$}", "svc.ping"))

	r := s.do(t, http.MethodPost, "/v1/users/7", "")
	failed(t, r, 405, endpoint.Unknown)
	assert.Equal(t, r.header.Get("Allow"), "DELETE, GET, HEAD")
	r = s.do(t, http.MethodPut, "/svc/echo", "")
	failed(t, r, 405, endpoint.Unknown)
	assert.Equal(t, r.header.Get("Allow"), "GET, HEAD, POST")

	failed(t, s.do(t, http.MethodPut, "/dir", ""), 404, endpoint.Unimplemented)
	assert.Equal(t, s.do(t, http.MethodGet, "/v1/users/me", "").body, "{}", "the more specific one")
	assert.Equal(t, s.do(t, http.MethodGet, "/svc/echo", "").body, "{}", "a route before the subject")
	assert.Equal(t, s.post(t, "/svc/echo", `{"a":1}`).body, `{"a":1}`, "the subject for other methods")
	assert.Equal(t, s.do(t, http.MethodGet, "/dir/a/b", "").body, "{}")
	assert.Equal(t, s.do(t, http.MethodGet, "/", "").body, "{}")
	failed(t, s.do(t, http.MethodGet, "/v1/gone", ""), 503, endpoint.Unavailable)
	for _, path := range []string{"/v1/users/", "/v1//users/7", "/v1/users/../users/7", "/v1/users/7/", "/dir", "/users/get", "/users.get"} {
		failed(t, s.do(t, http.MethodGet, path, ""), 404, endpoint.Unimplemented)
	}
	failed(t, s.post(t, "/users/get", "{}"), 404, endpoint.Unimplemented) // a route makes nothing else reachable
}

func TestRoute_HEADandETag(t *testing.T) {
	s := routed(t, httpbridge.Route("GET /v1/users/{id}", "users.get"))
	r := s.do(t, http.MethodGet, "/v1/users/7", "")
	tag := r.header.Get("ETag")
	assert.True(t, tag != "", "an ETag")
	assert.Equal(t, r.header.Get("Cache-Control"), "no-cache")
	head := s.do(t, http.MethodHead, "/v1/users/7", "")
	assert.Equal(t, head.status, 200)
	assert.Equal(t, head.body, "")
	assert.Equal(t, head.header.Get("ETag"), tag)
	assert.Equal(t, head.header.Get("Content-Length"), "18")
	for _, match := range []string{tag, "*", `"x", ` + tag, strings.TrimPrefix(tag, "W/")} {
		not := s.do(t, http.MethodGet, "/v1/users/7", "", "If-None-Match", match)
		assert.Equal(t, not.status, 304, match)
		assert.Equal(t, not.body, "")
		assert.Equal(t, not.header.Get("ETag"), tag)
		assert.Equal(t, not.header.Get("Vary"), "Accept-Encoding")
	}
	assert.Equal(t, s.do(t, http.MethodGet, "/v1/users/8", "", "If-None-Match", tag).status, 200)
	assert.Equal(t, s.do(t, http.MethodGet, "/v1/users/x", "", "If-None-Match", "*").status, 400)
}

var silence = httpbridge.WithLogger(slog.New(slog.DiscardHandler))

func TestRoute_faults(t *testing.T) {
	for _, tc := range []struct{ pattern, subject, want string }{
		{"/v1/users", "users.get", "must begin with one of GET"},
		{"FETCH /v1/users", "users.get", "must begin with one of GET"},
		{"get /v1/users", "users.get", "must begin with one of GET"},
		{"GET v1/users", "users.get", "must begin with a slash"},
		{"GET example.com/v1/users", "users.get", "without a host"},
		{"GET /v1/{", "users.get", "bad wildcard"},
		{"GET /v1/{a-b}", "users.get", "bad wildcard name"},
		{"GET /v1/{a}/{a}", "users.get", "duplicate wildcard"},
		{"GET /v1/{a...}/x", "users.get", "{...}"},
		{"GET /healthz", "users.get", "the bridge answers /healthz itself"},
		{"POST /readyz", "users.get", "the bridge answers /readyz itself"},
		{"GET /x", "users.*", "wildcard"},
		{"GET /x", "$SYS.REQ", "belongs to the broker"},
		{"GET /x", "a.$JS", "belongs to the broker"},
		{"GET /x", "", "empty"},
	} {
		err := httpbridge.New(newMux(t), silence, httpbridge.Route(tc.pattern, tc.subject)).Err()
		assert.True(t, err != nil, tc.pattern)
		assert.Contains(t, err.Error(), tc.pattern, tc.want)
	}
	err := httpbridge.New(newMux(t), silence, httpbridge.Route("GET /a/{x}", "svc.a"), httpbridge.Route("GET /{x}/b", "svc.b"),
		httpbridge.Route("GET /c", "svc.c"), httpbridge.Route("GET /c", "svc.d")).Err()
	assert.Equal(t, err.Error(), "Route: pattern \"GET /{x}/b\" conflicts with pattern \"GET /a/{x}\"\n"+
		"pattern \"GET /c\" conflicts with pattern \"GET /c\"")
}

func TestRoute_underAPrefix(t *testing.T) {
	m := newMux(t)
	b := httpbridge.New(m, httpbridge.Route("GET /raw/{name}", "svc.echo"))
	for _, prefix := range []string{"/api", "/api/"} {
		w := httptest.NewRecorder()
		http.StripPrefix(prefix, b).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/raw/a%2Fb", http.NoBody))
		assert.Equal(t, w.Body.String(), `{"name":"a/b"}`, prefix)
	}
}

// foreign is a service of other make, whose schema may be anything.
type foreign struct {
	endpoint.Transport

	schema string
}

func (f foreign) Discover(context.Context, string) ([]endpoint.Instance, error) {
	return []endpoint.Instance{{Service: "js", ID: "1", Version: "1.0.0", Endpoints: []endpoint.EndpointInfo{
		{Name: "echo", Subject: "svc.echo", Request: json.RawMessage(f.schema)},
	}}}, nil
}

func TestRoute_foreignSchemas(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{"n":{"type":"integer"}}}`:                      `{"n":5}`,
		`{"properties":{"n":{"type":["null","number"]}}}`:                              `{"n":5}`,
		`{"properties":{"n":{"type":["string","number"]}}}`:                            `{"n":"5"}`,
		`{"properties":{"n":{"anyOf":[{"type":"boolean"},{"type":"integer"}]}}}`:       `{"n":5}`,
		`{"properties":{"n":{"$ref":"#/$defs/N"}},"$defs":{"N":{"enum":["a","b"]}}}`:   `{"n":"5"}`,
		`{"properties":{"n":{"$ref":"#/$defs/N"}},"$defs":{"N":{"enum":[1,5,null]}}}`:  `{"n":5}`,
		`{"$ref":"#/$defs/R","$defs":{"R":{"properties":{"n":{"type":"integer"}}}}}`:   `{"n":5}`,
		`{"properties":{"n":{"$ref":"#"}},"type":"object"}`:                            `{"code":"invalid_argument","message":"field \"n\" of the path: it is of type object, which can be given in a body only"}`,
		`{"additionalProperties":{"type":"integer"}}`:                                  `{"n":5}`,
		`{"properties":{"N":{"type":"integer"}}}`:                                      `{"N":5}`,
		`{"properties":{"n":{"$ref":"#/$defs/A"}},"$defs":{"A":{"$ref":"#/$defs/A"}}}`: `{"n":"5"}`,
		`{"properties":{"n":{"$ref":"https://example.com/x"}}}`:                        `{"n":"5"}`,
		`{"properties":{"n":{"type":"array","items":{"type":"integer"}}}}`:             `{"n":[5]}`,
		`{"properties":{"n":true}}`:                                                    `{"n":"5"}`, `{"properties":[1]}`: `{"n":"5"}`, `{"properties":{"n":7}}`: `{"n":"5"}`,
		`true`: `{"n":"5"}`, `[]`: `{"n":"5"}`, `"x"`: `{"n":"5"}`, `{`: `{"n":"5"}`, `{"properties":{"n":{"type":{"a":1}}}}`: `{"n":"5"}`,
	} {
		s := start(t, foreign{newMux(t), schema}, httpbridge.Route("GET /{n}", "svc.echo"))
		assert.Equal(t, s.do(t, http.MethodGet, "/5", "").body, want, schema)
	}
}

// silent is a transport without discovery.
type silent struct{ endpoint.Transport }

func TestRoute_withoutDiscovery(t *testing.T) {
	s := start(t, silent{newMux(t)}, httpbridge.Route("GET /{n}", "svc.echo"))
	assert.Equal(t, s.do(t, http.MethodGet, "/5", "").body, `{"n":"5"}`)
}

// Routes of streams are answered as their subjects' paths are.
func TestRoute_streams(t *testing.T) {
	m := newMux(t)
	serve(t, m, "nums.count", endpoint.NewServerStream(func(_ context.Context, r *addRequest) iter.Seq2[*addResponse, error] {
		return func(yield func(*addResponse, error) bool) {
			for n := r.A; n <= r.B; n++ {
				if !yield(&addResponse{n}, nil) {
					return
				}
			}
			if r.B > 100 {
				yield(nil, endpoint.OutOfRange.New("too far"))
			}
		}
	}))
	total := func(_ context.Context, in iter.Seq2[*addResponse, error]) (*addResponse, error) {
		all := &addResponse{}
		for r, err := range in {
			if err != nil {
				return nil, err
			}
			all.Sum += r.Sum
		}
		return all, nil
	}
	serve(t, m, "nums.total", endpoint.NewClientStream(total))
	s := start(t, m, httpbridge.Route("GET /count/{a}", "nums.count"), httpbridge.Route("POST /count/{a}", "nums.count"),
		httpbridge.Route("POST /total", "nums.total"), httpbridge.Route("PUT /total/{sum}", "nums.total"))

	r := s.do(t, http.MethodGet, "/count/1?b=3", "")
	assert.Equal(t, r.body, "{\"result\":{\"sum\":1}}\n{\"result\":{\"sum\":2}}\n{\"result\":{\"sum\":3}}\n")
	assert.Equal(t, r.header.Get("Content-Type"), "application/x-ndjson")
	r = s.do(t, http.MethodGet, "/count/7?b=7", "", "Accept", "text/event-stream")
	assert.Contains(t, r.body, "data: {\"sum\":7}\n", "event: end\n")
	assert.Equal(t, s.post(t, "/count/1", `{"b":1}`).body, "{\"result\":{\"sum\":1}}\n")
	assert.Contains(t, s.do(t, http.MethodGet, "/count/100?b=101", "").body, `{"error":{"code":"out_of_range","message":"too far"}}`)
	failed(t, s.do(t, http.MethodGet, "/count/x", ""), 400, endpoint.InvalidArgument)
	failed(t, s.do(t, http.MethodGet, "/count/1", "", "Accept", "image/png"), 406, endpoint.Unknown)
	head := s.do(t, http.MethodHead, "/count/1", "")
	assert.Equal(t, head.status, 405)
	assert.Equal(t, head.header.Get("Allow"), "GET")

	r = s.do(t, http.MethodPost, "/total", "{\"sum\":1}\n{\"sum\":2}\n", "Content-Type", "application/x-ndjson")
	assert.Equal(t, r.body, `{"sum":3}`)
	assert.Equal(t, s.do(t, http.MethodPut, "/total/5", "").body, `{"sum":5}`)
	failed(t, s.do(t, http.MethodPut, "/total/5", "{}", "Content-Type", "application/x-ndjson"), 415, endpoint.Unknown)
}
