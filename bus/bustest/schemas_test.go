package bustest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"postbus.example/bus/bustest"
	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// largeRequest is described by more than a kilobyte.
type largeRequest struct {
	N int    `json:"n" doc:"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"`
	S string `json:"s" doc:"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"`
}

// TestSchemasOverTheBus: what has no room in an instance's first answer is told by its hash, and asked for where it is needed:
// by a route that has values to convert, by positions of JSON-RPC, and by the document.
func TestSchemasOverTheBus(t *testing.T) {
	s := bustest.Server(t)
	service, edge := connect(t, s), connect(t, s)
	const many = 30
	var opts []httpbridge.Option
	for i := range many {
		subject := fmt.Sprintf("large.e%d", i)
		assert.NoError(t, service.Serve(subject, endpoint.New(func(_ context.Context, r *largeRequest) (*largeRequest, error) { return r, nil })))
		opts = append(opts, httpbridge.Route(fmt.Sprintf("GET /large/%d/{n}", i), subject))
	}
	schema, err := endpoint.Schema(reflect.TypeFor[largeRequest]())
	assert.NoError(t, err)
	assert.True(t, many*len(schema) > 16<<10, "there is no room for all")
	for _, first := range []string{"route", "rpc", "document"} { // each by a bridge that knows nothing yet
		url := bridge(t, edge, append(opts, httpbridge.Expose("large.*"), httpbridge.WithJSONRPC(""), httpbridge.WithOpenAPI(httpbridge.Info{}))...)
		switch first {
		case "route":
			code, body := get(t, fmt.Sprintf("%s/large/%d/7?s=8", url, many-1))
			assert.Equal(t, code, 200, body)
			assert.Equal(t, body, `{"n":7,"s":"8"}`)
		case "rpc":
			code, body := post(t, url+"/rpc", fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"large.e%d","params":[7,"8"]}`, many-1))
			assert.Equal(t, code, 200, body)
			assert.Contains(t, body, `"result":{"n":7,"s":"8"}`)
		case "document":
			code, body := get(t, url+"/openapi.json")
			assert.Equal(t, code, 200)
			var doc struct {
				Components struct{ Schemas map[string]any }
			}
			assert.NoError(t, json.Unmarshal([]byte(body), &doc))
			assert.Equal(t, len(doc.Components.Schemas), 2*many+1, "requests, replies and the error")
			assert.Equal(t, strings.Count(body, "0123456789"), many*6*28, "descriptions of two fields each: in the request, in the reply, as parameters")
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	assert.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	return resp.StatusCode, string(data)
}
