package httpbridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"postbus.example/codec"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// bombs are published schemas that lead back to themselves more often than anybody can follow.
func bombs() map[string]string {
	ref := `{"$ref":"#"}`
	alternatives := strings.Repeat(ref+",", 30) + ref
	chain, wide := make([]string, 20_000), make([]string, 900)
	for i := range chain {
		chain[i] = fmt.Sprintf(`"d%d":{"$ref":"#/$defs/d%d"}`, i, i+1)
	}
	for i := range wide {
		wide[i] = fmt.Sprintf(`"d%d":{"anyOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, (i+1)%len(wide), (i*7)%len(wide))
	}
	return map[string]string{
		"alternatives of itself": `{"type":"object","properties":{"n":{"type":"integer"}},"anyOf":[` + alternatives + `],"allOf":[` + alternatives + `]}`,
		"a field of itself":      `{"type":"object","properties":{"n":{"oneOf":[` + alternatives + `]}}}`,
		"a chain of definitions": `{"type":"object","properties":{"n":{"type":"integer"}},"$defs":{` + strings.Join(chain, ",") + `}}`,
		"a net of definitions":   `{"type":"object","properties":{"n":{"$ref":"#/$defs/d0"}},"$defs":{` + strings.Join(wide, ",") + `}}`,
	}
}

// Schemas come from whoever serves: none of them keeps the bridge busy for good.
func TestHostile_schemas(t *testing.T) {
	for name, schema := range bombs() {
		t.Run(name, func(t *testing.T) {
			s := start(t, foreign{newMux(t), schema}, httpbridge.Route("GET /{n}", "svc.echo"), httpbridge.Expose("svc.*"),
				httpbridge.WithOpenAPI(httpbridge.Info{Title: "t", Version: "1.0.0"}), httpbridge.WithJSONRPC(""))
			r := s.do(t, http.MethodGet, "/openapi.json", "")
			assert.Equal(t, r.status, 200)
			assert.True(t, json.Valid([]byte(r.body)))
			assert.True(t, s.do(t, http.MethodGet, "/7", "").status < 500)
			assert.True(t, s.post(t, "/rpc", `{"jsonrpc":"2.0","id":1,"method":"svc.echo","params":[1]}`).status < 500)
		})
	}
}

// What all replies of a batch may be is bounded: the calls behind that don't run, and say so.
func TestJSONRPC_largeReplies(t *testing.T) {
	m := newMux(t)
	ran := 0
	serve(t, m, "svc.large", endpoint.New(func(context.Context, *codec.Payload) (*codec.Payload, error) {
		ran++
		return &codec.Payload{MediaType: "application/json", Data: []byte(`"` + strings.Repeat("x", 1000) + `"`)}, nil
	}))
	call := `{"jsonrpc":"2.0","id":1,"method":"svc.large"}`
	s := start(t, m, httpbridge.Expose("svc.*"), httpbridge.WithJSONRPC(""), httpbridge.WithLimits(httpbridge.Limits{Body: 1000, Concurrent: 1}))
	r := s.post(t, "/rpc", "["+strings.Repeat(call+",", 19)+call+"]")
	assert.Equal(t, r.status, 200)
	assert.Equal(t, strings.Count(r.body, `"result"`), 16)
	assert.Equal(t, strings.Count(r.body, "ask for less at once"), 4)
	assert.Equal(t, ran, 16)
}

// A body that joins the fields of a path is UTF-8 in the names of its members, too.
func TestRoute_names(t *testing.T) {
	s := start(t, newMux(t), httpbridge.Route("PUT /v1/{a}", "svc.add"))
	r := s.do(t, http.MethodPut, "/v1/1", "{\"b\xff\":1}", "Content-Type", "application/json")
	assert.Contains(t, failed(t, r, 400, endpoint.InvalidArgument), "not UTF-8")
}
