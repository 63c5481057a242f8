package httpbridge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postbus.example/endpoint"
	"postbus.example/httpbridge"
	"postbus.example/internal/assert"
)

// What routes, JSON-RPC and a document cost, without a socket: the first row is what a plain call does.
func BenchmarkRest(b *testing.B) {
	m := newMux(b)
	for i := range 100 {
		serve(b, m, fmt.Sprintf("profiles%d.get", i), endpoint.New(getProfile, endpoint.ReadOnly()))
	}
	bridge := httpbridge.New(m, silence, httpbridge.Expose("svc.add", "*.get"), httpbridge.WithJSONRPC(""),
		httpbridge.Route("POST /sums/{a}", "svc.add"), httpbridge.Route("GET /sums/{a}", "svc.add"), httpbridge.WithOpenAPI(httpbridge.Info{}))
	assert.NoError(b, bridge.Err())
	call := `{"jsonrpc":"2.0","id":1,"method":"svc.add","params":{"a":1,"b":2}}`
	for _, bm := range []struct{ name, method, path, body string }{
		{"subject", http.MethodPost, "/svc/add", `{"a":1,"b":2}`},
		{"route with body", http.MethodPost, "/sums/1", `{"b":2}`},
		{"route with query", http.MethodGet, "/sums/1?b=2", ``},
		{"rpc", http.MethodPost, "/rpc", call},
		{"rpc by position", http.MethodPost, "/rpc", strings.Replace(call, `{"a":1,"b":2}`, `[1,2]`, 1)},
		{"rpc batch of 20", http.MethodPost, "/rpc", "[" + strings.Repeat(call+",", 19) + call + "]"},
		{"document", http.MethodGet, "/openapi.json", ``},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(bm.method, bm.path, strings.NewReader(bm.body))
				if bm.body == "" {
					r.Body = http.NoBody
				}
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				bridge.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
